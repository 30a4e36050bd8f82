"""What holds of budgets and charges, counted from the rows alone: none of the product's own sums is used."""

import json
from decimal import Decimal

PRICE = 300_000
"""Micro-dollars of a video, and"""
SECONDS = 4
"""its duration."""
MICROS = 10**6
BUDGETS = (None, None, "2 videos", "0.75 USD", "1.2 USD, 3 videos", "9 seconds", "0.9 USD, 100 seconds, 2 videos")
TOLD = (None, None, "0.3", "0.2999999999", "0.45", "0", "-1", "3e9", "1000")
"""What a create's answer may say that a video costs."""


def budget(text):
    """As a batch records it."""
    if text is None:
        return []
    return [{"amount": part.split()[0], "unit": part.split()[1]} for part in text.split(", ")]


def charges(database):
    sql = "SELECT id, batch_id, day, charge, currency, reserved_micros, charged_micros, charged_rest, seconds FROM submissions"
    names = ("id", "batch_id", "day", "charge", "currency", "reserved", "charged", "rest", "seconds")
    return [dict(zip(names, row, strict=True)) for row in database.execute(sql).fetchall()]


def counted(charge, unit):
    """What a charge counts against a budget of this unit."""
    if charge["charge"] == "released":
        return 0
    if unit == "videos":
        return MICROS
    if unit == "seconds":
        return charge["seconds"] * MICROS
    assert charge["currency"] == unit
    return charge["charged"] + bool(charge["rest"]) if charge["charge"] == "charged" else charge["reserved"]


def belongs(charge, scope, period):
    """Whether a charge counts against a budget."""
    match scope:
        case "batch":
            return charge["batch_id"] == period
        case "day":
            return charge["day"] == period
        case "month":
            return charge["day"][:7] == period
        case _:
            return True


def used(found, scope, period, unit):
    return sum(counted(charge, unit) for charge in found if belongs(charge, scope, period))


def check(database):
    """Each budget's `used` is the sum of the charges that count against it: none twice, none not at all."""
    found = charges(database)
    for charge in found:
        assert charge["charge"] in {"reserved", "released", "assumed", "charged"}, charge
        assert (charge["charge"] == "charged") == (charge["charged"] is not None), charge
        assert charge["reserved"] == PRICE, charge
    for scope, period, unit, recorded in database.execute(
        "SELECT scope, period, unit, used_micros FROM budgets"
    ).fetchall():
        if scope == "batch" and unit not in {each[2] for each in ceilings(database, period)}:
            continue  # an owner that has not heard of the change has opened it again: it is added up anew when it is set
        assert recorded == used(found, scope, period, unit), f"{recorded} {unit} are used of {scope} {period}: {found}"


def ceilings(database, batch_id):
    """The ceilings that a batch's payments count against now: scope, period, unit, millionths."""
    found = database.execute("SELECT budget FROM batches WHERE id=?", (batch_id,)).fetchone()
    own = json.loads(found[0]) if found and isinstance(found[0], str) else (found and found[0]) or []
    yield from (("batch", batch_id, each["unit"], int(Decimal(each["amount"]) * MICROS)) for each in own)
    for scope, unit, ceiling in database.execute("SELECT scope, unit, ceiling_micros FROM ceilings").fetchall():
        if ceiling is not None and scope == "total":
            yield scope, "", unit, ceiling


class Grants:
    """What stood before a step, to judge what it reserves."""

    def __init__(self, database, changes):
        self._changes = changes
        self._before = charges(database)
        self._ceilings = list(ceilings(database, changes.batch.id))
        known = {charge["id"] for charge in self._before}
        self._fresh = [intent for intent in changes.intents if intent.id not in known]

    def check(self):
        """No reservation was granted that exceeds a ceiling. What is wrong, or None."""
        if not self._fresh or self._changes.anyway:
            return None
        for scope, period, unit, ceiling in self._ceilings:
            each = {"videos": MICROS, "seconds": SECONDS * MICROS}.get(unit, PRICE)
            before, more = used(self._before, scope, period, unit), each * len(self._fresh)
            if before + more > ceiling:
                return f"{more} of {unit} were granted on top of {before}, and the ceiling of {scope} is {ceiling}"
        return None
