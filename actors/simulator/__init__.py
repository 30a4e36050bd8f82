"""A stand-in for the Videos API: a real HTTP server whose films say that they are simulated.

Owns what the servers of this protocol do on the wire. Knows nothing of batches, storage or the Sora client.
"""

from actors.simulator.films import DrawingUnavailableError
from actors.simulator.profiles import PROFILES
from actors.simulator.server import Simulator, SimulatorOptions

__all__ = ["PROFILES", "DrawingUnavailableError", "Simulator", "SimulatorOptions"]
