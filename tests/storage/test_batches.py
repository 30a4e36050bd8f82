"""Batches as rows: the fence, claims, and how they are found. One suite for both databases."""

import pytest

from storage.states import BatchStatus
from tests.builders import NOON, PROVIDER, a_batch, an_owner, put

ELSEWHERE = "http://elsewhere/v1#key"


@pytest.fixture
def batches(storage):
    return storage.batches


@pytest.fixture
def claim(storage):
    def claim(*batch_ids, owner="us", provider=PROVIDER, limit=9):
        with storage.database.begin():
            if batch_ids:
                return storage.batches.claim(batch_ids, owner=owner, provider=provider, limit=limit)
            everything = [batch.id for batch in storage.batches.find()]
            return storage.batches.claim(everything, owner=owner, provider=provider, limit=limit, only_wanted=True)

    return claim


def test_a_batch_comes_back_as_it_was_stored(batches):
    batch = a_batch(
        name="Natur „grün“", metadata={"a": {"b": [1, None, True]}}, error={"code": "x"}, provider=PROVIDER,
        timeout=0.25, spent=1.5, wanted=True, owner="us", started_at=NOON + 0.123456, completed_at=NOON + 1,
    )  # fmt: skip
    batches.add(batch)
    assert batches.get("nature") == batch
    assert batches.locked("nature") == batch


def test_a_batch_that_is_not_there_is_none(batches):
    assert batches.get("nature") is None
    assert batches.locked("nature") is None
    assert batches.standings(["nature"]) == {}


# --- the fence


def test_a_batch_advances_where_it_stands(batches):
    batches.add(a_batch(epoch=2, sequence=5))
    after = a_batch(
        epoch=2, sequence=7, status=BatchStatus.FAILED, failed=1, error={"code": "ü"}, concurrency=9, claims=1,
        spent=2.5, updated_at=NOON + 1, started_at=NOON, completed_at=NOON + 1,
    )  # fmt: skip
    assert batches.advance(after, epoch=2, sequence=5)
    assert batches.get("nature") == after


@pytest.mark.parametrize(("epoch", "sequence"), [(1, 5), (3, 5), (2, 4), (2, 6)])
def test_a_batch_that_has_moved_on_is_left_alone(batches, epoch, sequence):
    batches.add(a_batch(epoch=2, sequence=5))
    assert not batches.advance(a_batch(epoch=2, sequence=7), epoch=epoch, sequence=sequence)
    assert batches.get("nature") == a_batch(epoch=2, sequence=5)


def test_an_owner_that_was_fenced_off_can_not_let_go(batches):
    batches.add(a_batch(epoch=3, owner="new", wanted=True, claims=-2))
    batches.release("nature", epoch=2, spent=1.0, wanted=False)
    assert batches.get("nature") == a_batch(epoch=3, owner="new", wanted=True, claims=-2)


def test_a_batch_that_is_let_go_has_no_owner_and_killed_nobody(batches):
    batches.add(a_batch(epoch=3, owner="us", wanted=True, claims=-2))
    batches.release("nature", epoch=3, spent=1.5, wanted=True)
    assert batches.get("nature") == a_batch(epoch=4, owner=None, wanted=True, claims=0, spent=1.5)


def test_a_batch_that_is_let_go_before_it_was_begun_keeps_its_deaths(batches):
    batches.add(a_batch(epoch=3, owner="us", wanted=True, claims=-2))
    batches.release("nature", epoch=3, spent=1.5, wanted=True, claims=-2)
    assert batches.get("nature").deaths == 2


def test_standings_tell_whose_a_batch_is(batches):
    batches.add(a_batch("a", epoch=2, owner="us", status=BatchStatus.PROCESSING))
    batches.add(a_batch("b"))
    expected = {"a": (BatchStatus.PROCESSING, 2, "us"), "b": (BatchStatus.PENDING, 0, None)}
    assert batches.standings(["a", "b", "c"]) == expected
    assert batches.standings([]) == {}


# --- claims


def test_a_free_batch_is_claimed_under_a_new_epoch(batches, claim):
    batches.add(a_batch(wanted=True, epoch=4))
    assert claim() == ["nature"]
    assert batches.get("nature") == a_batch(wanted=True, epoch=5, owner="us", provider=PROVIDER)


def test_a_batch_whose_owners_lease_lasts_is_not_claimed(storage, batches, claim):
    storage.owners.renew(an_owner("them"), 60)
    batches.add(a_batch(wanted=True, owner="them"))
    assert claim() == []
    assert batches.get("nature").epoch == 0


def test_a_batch_whose_owners_lease_ran_out_is_claimed(storage, batches, claim):
    storage.owners.renew(an_owner("them"), -1)
    batches.add(a_batch(wanted=True, owner="them", claims=-1))
    assert claim() == ["nature"]
    assert (batches.get("nature").owner, batches.get("nature").deaths) == ("us", 1)


def test_claims_of_the_version_before_are_no_deaths(batches, claim):
    """It counted each claim until it recorded something, also of a batch that only waited for a place."""
    batches.add(a_batch(wanted=True, owner="forgotten", claims=4))
    assert claim() == ["nature"]
    assert batches.get("nature").deaths == 0


def test_a_batch_whose_owner_nobody_knows_is_claimed(batches, claim):
    batches.add(a_batch(wanted=True, owner="forgotten"))
    assert claim() == ["nature"]


def test_a_batch_of_ones_own_is_claimed_again(storage, batches, claim):
    storage.owners.renew(an_owner("us"), 60)
    batches.add(a_batch(wanted=True, owner="us", epoch=1, claims=-1))
    assert claim() == ["nature"]
    assert (batches.get("nature").epoch, batches.get("nature").deaths) == (2, 0)


@pytest.mark.parametrize(
    "columns",
    [{"wanted": False}, *({"wanted": True, "status": status} for status in list(BatchStatus)[2:])],
    ids=lambda columns: "-".join(map(str, columns.values())),
)
def test_what_is_not_wanted_or_has_ended_is_not_claimed(batches, claim, columns):
    batches.add(a_batch(**columns))
    assert claim() == []


def test_a_batch_stays_with_its_provider(batches, claim):
    batches.add(a_batch(wanted=True, provider=ELSEWHERE))
    assert claim() == []
    assert claim(provider=ELSEWHERE) == ["nature"]
    assert batches.get("nature").provider == ELSEWHERE


def test_a_batch_is_claimed_with_any_key_of_its_server(batches, claim):
    """By what was recorded at the first claim; by its provider's own text where the version before recorded it."""
    batches.add(a_batch(wanted=True))
    assert claim(provider="http://server/v1#one") == ["nature"]
    batches.release("nature", epoch=1, spent=0.0, wanted=True)
    assert list(batches.wanted("http://Server:80/v1/#two", owner="us", limit=9)) == ["nature"]
    assert list(batches.wanted("http://server:81/v1#one", owner="us", limit=9)) == []
    assert claim(provider="http://Server:80/v1/#two") == ["nature"]
    assert batches.get("nature").provider == "http://server/v1#one"
    assert batches.unfinished("http://Server:80/v1/#two") == ["nature"]


def test_a_batch_that_the_version_before_has_started_is_claimed_with_any_key(batches, claim):
    batches.add(a_batch("open", wanted=True, provider="http://server/v1#old"))
    batches.add(a_batch("ended", status=BatchStatus.FAILED, provider="http://server/v1#old"))
    assert list(batches.wanted("http://server/v1#new", owner="us", limit=9)) == []
    batches.fill_in()
    assert list(batches.wanted("http://server/v1#new", owner="us", limit=9)) == ["open"]


def test_a_batch_whose_deletion_was_begun_is_nobodys_work(batches, claim):
    """The version before does not see that, and may want it again."""
    batches.add(a_batch(wanted=True, provider=PROVIDER))
    batches.hide("nature", NOON)
    assert list(batches.wanted(PROVIDER, owner="us", limit=9)) == []
    assert batches.unfinished(PROVIDER) == []
    assert batches.standings(["nature"]) == {}
    assert claim("nature") == []


def test_who_owns_a_batch_that_is_moved_is_fenced(batches, claim):
    batches.add(a_batch(wanted=True))
    claim()
    batches.move(batches.get("nature"), "https://new/v1#key")
    moved = batches.get("nature")
    assert (moved.provider, moved.owner, moved.epoch) == ("https://new/v1#key", None, 2)


def test_only_so_many_are_claimed_the_oldest_first(batches, claim):
    for batch_id, minutes in [("third", 3), ("first", 1), ("second", 2)]:
        batches.add(a_batch(batch_id, wanted=True, created_at=NOON + minutes))
    assert set(claim(limit=2)) == {"first", "second"}
    assert batches.get("third").owner is None


def test_only_the_batches_that_are_named_are_claimed(storage, batches, claim):
    for batch_id in ("a", "b", "c"):
        batches.add(a_batch(batch_id, wanted=True))
    assert sorted(claim("a", "c", "unknown")) == ["a", "c"]
    assert batches.get("b").owner is None
    assert storage.batches.claim([], owner="us", provider=PROVIDER, limit=9) == []


def test_a_batch_that_is_asked_for_by_name_is_wanted_again(batches, claim):
    batches.add(a_batch("let-go", wanted=False))
    assert claim("let-go") == ["let-go"]
    assert batches.get("let-go").wanted


def test_a_batch_that_nobody_works_on_is_left(batches):
    batches.add(a_batch("mine", wanted=True, owner="us", epoch=4, claims=2))
    batches.add(a_batch("nobodys", wanted=True, epoch=4))
    batches.add(a_batch("theirs", wanted=True, owner="them", epoch=4))
    for batch_id in ("mine", "nobodys", "theirs"):
        batches.release_idle(batch_id, owner="us", wanted=False)
    found = [batches.get(batch_id) for batch_id in ("mine", "nobodys", "theirs")]
    assert [(batch.owner, batch.epoch, batch.wanted) for batch in found] == [
        (None, 5, False), (None, 5, False), ("them", 4, True),
    ]  # fmt: skip
    assert found[0].claims == 2


# --- finding


def test_batches_are_found_the_newest_first(batches):
    for minutes, batch_id in enumerate(["old", "middle", "new"]):
        batches.add(a_batch(batch_id, created_at=NOON + minutes))
    assert [batch.id for batch in batches.find()] == ["new", "middle", "old"]


def test_batches_are_found_by_status(batches):
    batches.add(a_batch("a", status=BatchStatus.FAILED))
    batches.add(a_batch("b"))
    assert [batch.id for batch in batches.find(status=BatchStatus.FAILED)] == ["a"]
    assert batches.find(status=BatchStatus.PARTIAL) == []


def test_pages_neither_repeat_nor_miss_a_batch_even_of_one_moment(batches):
    for number in range(7):
        batches.add(a_batch(f"b{number}", created_at=NOON + number // 3))
    found, after = [], None
    while page := batches.find(limit=2, after=after):
        found += [batch.id for batch in page]
        after = found[-1]
    assert found == ["b6", "b5", "b4", "b3", "b2", "b1", "b0"]


KEYS = [
    "colour",
    "a.b",
    "x-y",
    "0",
    "ü",
    "with space",
    "a'b",
    "$",
    "[0]",
    "'; --",
    "%s",
    "100%",
    "?",
    "a\\b",
    "{a}",
    "a,b",
    "",
    " ",
]
VALUES = ["red", "", "7", "a'b\"c", "ü", "%s", "?", 7, 0, -1, 1.5, True, False, [1, 2], {"x": 1}]


@pytest.mark.parametrize("key", KEYS)
def test_batches_are_found_by_their_metadata_whatever_they_hold(batches, key):
    for number, value in enumerate(VALUES):
        batches.add(a_batch(f"b{number}", metadata={key: value, "other": "x"}))
        batches.add(a_batch(f"other{number}", metadata={"other": value}))
    found = [[batch.id for batch in batches.find(metadata={key: value})] for value in VALUES]
    assert found == [[f"b{number}"] for number in range(len(VALUES))]
    assert batches.find(metadata={key: "red", "other": "y"}) == []


def test_a_batch_must_match_in_every_key(batches):
    batches.add(a_batch("one", metadata={"a": "1", "b": "2"}))
    batches.add(a_batch("two", metadata={"a": "1", "b": "3"}))
    assert [batch.id for batch in batches.find(metadata={"a": "1", "b": "3"})] == ["two"]


def test_a_text_and_a_number_are_not_the_same(batches):
    batches.add(a_batch("text", metadata={"n": "7"}))
    batches.add(a_batch("number", metadata={"n": 7}))
    assert [batch.id for batch in batches.find(metadata={"n": 7})] == ["number"]
    assert [batch.id for batch in batches.find(metadata={"n": "7"})] == ["text"]


def test_unfinished_are_those_that_were_started_or_are_wanted(batches):
    batches.add(a_batch("waiting"))
    batches.add(a_batch("wanted", wanted=True, created_at=NOON + 2))
    batches.add(a_batch("started", status=BatchStatus.PROCESSING, created_at=NOON + 1, provider=PROVIDER))
    batches.add(a_batch("elsewhere", status=BatchStatus.PROCESSING, provider=ELSEWHERE))
    batches.add(a_batch("over", status=BatchStatus.PARTIAL, wanted=True))
    assert batches.unfinished(PROVIDER) == ["started", "wanted"]


def test_what_ended_long_ago_is_found(batches):
    batches.add(a_batch("old", completed_at=NOON))
    batches.add(a_batch("young", completed_at=NOON + 9))
    batches.add(a_batch("open"))
    batches.add(a_batch("older", completed_at=NOON - 1))
    assert [batch.id for batch in batches.ended_before(NOON + 1, 9)] == ["older", "old"]
    assert [batch.id for batch in batches.ended_before(NOON + 1, 1)] == ["older"]


def test_a_batch_that_is_being_deleted_is_seen_by_nobody(batches):
    for name in ("kept", "going"):
        batches.add(a_batch(name, status=BatchStatus.FAILED, completed_at=NOON))
    batches.hide("going", NOON)
    assert (batches.hidden(), batches.hidden("kept"), batches.hidden("going")) == (["going"], [], ["going"])
    assert batches.get("going") is batches.locked("going") is None
    assert (
        [batch.id for batch in batches.find()] == [batch.id for batch in batches.ended_before(NOON + 1, 9)] == ["kept"]
    )


def test_what_has_changed_since_it_was_read_is_told(batches):
    read = [a_batch("same", epoch=3), a_batch("other", epoch=3), a_batch("gone")]
    batches.add(read[0])
    batches.add(a_batch("other", epoch=4))
    assert batches.unchanged(read) == ["same"]


HOSTILE = ["it's", 'q"t', "a.b", "", "0", "$", '$."a"', "{a}", "a,b", "%s", "%", "?", "\\", "\n", "ü", "x') OR 1=1 --"]


@pytest.mark.parametrize("key", HOSTILE)
def test_every_key_of_metadata_can_be_asked_for(batches, key):
    batches.add(a_batch("has", metadata={key: "y", "other": 1}))
    batches.add(a_batch("has not", metadata={f"{key}x": "y", "y": key}))
    assert [batch.id for batch in batches.find(metadata={key: "y"})] == ["has"]
    assert batches.find(metadata={key: "z"}) == []
    assert [batch.id for batch in batches.find(metadata={key: "y", "other": 1})] == ["has"]


VALUES = ["1", 1, True, False, 0, 1.5, [1, {"x": 2}], {"x": [1, "é"]}, "true", "null", "é", "", 12345678901234567890]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_metadata_are_compared_as_json(batches, value):
    for number, each in enumerate(VALUES):
        batches.add(a_batch(f"b{number}", metadata={"k": each}))
    found = [batch.metadata["k"] for batch in batches.find(metadata={"k": value})]
    assert found == [value]
    assert type(found[0]) is type(value)


def test_none_is_also_what_is_not_there(batches):
    batches.add(a_batch("null", metadata={"k": None}))
    batches.add(a_batch("none", metadata={}))
    batches.add(a_batch("some", metadata={"k": 0}))
    assert {batch.id for batch in batches.find(metadata={"k": None})} == {"null", "none"}


def test_what_ended_badly_of_late_is_found(batches):
    batches.add(a_batch("old", status=BatchStatus.FAILED, completed_at=NOON))
    batches.add(a_batch("young", status=BatchStatus.CANCELLED, completed_at=NOON + 9))
    batches.add(a_batch("well", status=BatchStatus.COMPLETED, completed_at=NOON + 9))
    batches.add(a_batch("open"))
    assert batches.ended_badly_since(NOON + 1) == ["young"]


def test_metadata_are_replaced_without_touching_anything_else(batches):
    batches.add(a_batch(metadata={"a": 1}, epoch=2))
    batches.update("nature", metadata={"b": None})
    assert batches.get("nature") == a_batch(epoch=2)._replace(metadata={"b": None})


def test_a_batch_is_forgotten_with_its_jobs(storage):
    put(storage, a_batch(total=2))
    storage.batches.remove("nature")
    assert storage.batches.get("nature") is None
    assert storage.jobs.of_batch("nature") == []


def test_an_id_is_taken_once(batches):
    assert batches.add(a_batch())
    assert not batches.add(a_batch(digest="other"))
    assert batches.get("nature").digest == "digest"
