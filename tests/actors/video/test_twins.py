"""Whose video an adopted one may be: a warning where neither the listing nor the video tells, and none elsewhere."""

from typing import Any

from actors.sora.wire import parse_video
from actors.video.comparison import twins_of, uncertain
from storage.states import SubmissionState
from storage.storage import Storage
from tests.builders import NOON, a_batch, a_job, an_intent


def warned(mine: dict[str, Any], *others: dict[str, Any], **told: Any) -> list[tuple[str, Any]]:
    video = parse_video({"id": "v", "status": "completed", "prompt": "a lake", **told})
    assert video is not None
    job = a_job(1, prompt="a lake", **mine)
    twins = [a_job(number, prompt="a lake", **other) for number, other in enumerate(others, 2)]
    return [(each["code"], each["asked"]) for each in uncertain(job, video, twins)]


def test_each_field_that_nobody_tells_has_a_warning() -> None:
    mine = {"options": {"seed": 1, "params": {"fps": 24, "steps": 2}, "files": {"mask": {"digest": "a"}}}}
    assert warned({}, {}) == warned(mine) == []
    assert warned(mine, mine) == []
    assert warned(mine, {"reference": {"digest": "b"}, "options": {"seed": 2, "params": {"steps": 2}}}) == [
        ("seed_uncertain", 1), ("params_uncertain", "fps"), ("files_uncertain", "input_reference, mask"),
    ]  # fmt: skip
    assert warned({"duration": 4, "size": "1x1", "model": "m"}, {"duration": 8, "size": "2x2", "model": "n"}) == [
        ("model_uncertain", "m"), ("duration_uncertain", 4), ("size_uncertain", "1x1"),
    ]  # fmt: skip
    assert warned({}, {"options": {"seed": 2}}) == [("seed_uncertain", None)]


def test_a_field_that_the_video_tells_says_whose_it_is() -> None:
    first, second = {"options": {"seed": 1}}, {"options": {"seed": 2}}
    assert warned(first, second, seed=1) == []
    assert warned({"duration": 4, **first}, {"duration": 8, **second}, seconds="4") == []


def test_some_of_many_twins_are_named() -> None:
    job, *twins = (a_job(number, options={"seed": number}) for number in range(1, 7))
    video = parse_video({"id": "v", "status": "completed"})
    assert video is not None
    (warning,) = uncertain(job, video, twins)
    assert warning["message"] == (
        "asked for seed 1; the create's answer was lost and the video was found in the server's listing, which does "
        "not show the seed: it may be that of nature-02, nature-03, nature-04 and 2 more"
    )


CASES = [
    ({}, SubmissionState.BOUND, True),
    ({}, SubmissionState.UNKNOWN, True),
    ({}, SubmissionState.ABANDONED, True),
    ({}, SubmissionState.ABSENT, False),
    ({"prompt": "a boat"}, SubmissionState.UNKNOWN, False),
    ({"options": {"seed": 1}}, SubmissionState.UNKNOWN, False),
    ({"started_at": NOON + 4}, SubmissionState.UNKNOWN, False),  # found before the adopted one was intended
]


def test_twins_are_those_of_whose_video_nobody_told(storage: Storage) -> None:
    submissions = storage.submissions
    with storage.database.begin():
        for number, (other, state, is_twin) in enumerate(CASES):
            batch = f"case-{number}"
            mine = a_job(1, batch, prompt=f"lake {batch}", options={"seed": 1}, started_at=NOON + 9)
            twin = a_job(2, batch, prompt=mine.prompt, options={"seed": 2})._replace(**other)
            storage.batches.add(a_batch(batch, total=2))
            storage.jobs.add([mine, twin])
            ours, theirs = f"mine {batch}", f"twin {batch}"
            submissions.intend([an_intent(ours, mine), an_intent(theirs, twin)])
            for name, after in ((ours, 5), (theirs, 1)):
                storage.database.execute("UPDATE submissions SET intended_at=? WHERE id=?", (NOON + after, name))
            if state is SubmissionState.BOUND:
                submissions.bind(theirs, f"their video {batch}", adopted=True)
            else:
                submissions.settle(theirs, state)
            submissions.bind(ours, f"video {batch}", adopted=True)
            assert [job.id for job in twins_of(storage, ours)] == ([twin.id] if is_twin else []), CASES[number]
            submissions.bind(ours, f"video {batch}")  # its own answer came after all
            assert twins_of(storage, ours) == []
