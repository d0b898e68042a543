"""Revisions and decisions as people and programs read them."""

from __future__ import annotations

from kohort.cli.history import history, pages
from tests.unit.cli_samples import NOW, RESOURCES, printed


def shown(sample: str, width: int) -> str:
    return "\n".join(printed(p, width) for p in pages(history(RESOURCES[sample]), NOW, width))


def test_a_history_is_told_whole_on_a_terminal_of_80_columns() -> None:
    assert shown("commanded", 80) == COMMANDED_80


COMMANDED_80 = """\
REVISION  CREATED   COHORTS               MODEL           LEFT
v1        09:00:00                        ../menu/1.onnx  aborted: replaced by
                                                          v2 at 10:21:00
v2        10:19:00  held, stepped,        ../menu/2.onnx  done: replaced by v3
                    aborted                               at 10:40:30
v3        10:39:00  done                  ../menu/3.onnx  aborted: aborted at
                                                          10:41:00
kept to go back to: v1, v2; as in kubectl kohort undo menu --to v2

WHEN      COHORT              DECISION        BY            WHY
09:01:00  aborted             Promoted v1     Kohort
10:21:00  held, aborted,      Promoted v2     Kohort
          done
10:40:00  held                Held v3         anna          incident 4711
10:40:30  done                Promoted v3     Kohort        its steps compared
                                                            nothing
10:41:00  aborted             Aborted v3      anna          wrong labels
10:41:20  stepped             StepSkipped v3  system:admin  left step 1 of 2"""


def test_with_room_each_revision_and_decision_is_one_line() -> None:
    assert len(shown("commanded", 200).splitlines()) == 1 + 3 + 1 + 1 + 1 + 6


def test_what_all_cohorts_did_at_once_is_one_line_for_all() -> None:
    resource = {
        "metadata": {"name": "m"},
        "status": {
            "cohorts": [
                {
                    "name": name,
                    "stable": "m-aaa",
                    "decisions": [
                        {
                            "action": "Held",
                            "revision": "m-aaa",
                            "at": "2026-11-24T10:00:00Z",
                            "by": "anna",
                        }
                    ],
                }
                for name in ("staff", "everyone")
            ],
            "revisions": [
                {"name": "m-aaa", "number": 1, "uri": "u", "createdAt": "2026-11-24T09:00:00Z"}
            ],
        },
    }
    told = history(resource)
    lines = [line for p in pages(told, NOW, 100) for line in printed(p, 100).splitlines()]
    assert "10:00:00  all     Held v1   anna" in [line.rstrip() for line in lines]
    assert [entry.cohort for entry in told.decisions] == ["staff", "everyone"]


def test_the_only_cohort_goes_by_its_name() -> None:
    lines = [line.split() for line in shown("undone", 80).splitlines()]
    assert ["10:20:00", "everyone", "Promoted", "v2", "Kohort"] in lines


def test_programs_learn_who_decided_what_and_what_can_be_undone() -> None:
    told = history(RESOURCES["undone"])
    assert [(r.label, r.cohorts, r.undo) for r in told.revisions] == [
        ("v1", ("everyone",), False),
        ("v2", (), True),
    ]
    assert [(e.action, e.revision, e.by, e.why) for e in told.decisions] == [
        ("Promoted", "v2", "", ""),
        ("Undone", "v1", "bob", "on second thoughts"),
        ("Promoted", "v1", "", ""),
    ]
    (left,) = told.revisions[1].ended
    assert (left.cohort, left.how) == ("everyone", "replaced by v1")


def test_a_model_that_nothing_happened_to_has_an_empty_history() -> None:
    told = history(RESOURCES["unseen"])
    assert (told.revisions, told.decisions) == ((), ())
    assert [printed(p, 80) for p in pages(told, NOW, 80)] == [
        "REVISION  CREATED  COHORTS  MODEL  LEFT"
    ]
