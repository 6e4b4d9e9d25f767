"""The incidents that wait to be asked about."""

import msgspec

from kat_otel.processor.questions import Questions
from kat_otel.verdict import Incident
from tests.analyzer.incidents import late_launch, report

SPAN = (b"", b"")


def incident(name: str, impact_ns: int, *, page: bool = False) -> Incident:
    return msgspec.structs.replace(late_launch(), id=name, impact_ns=impact_ns, page=page)


def filled(questions: Questions, *incidents: Incident) -> list[bool]:
    return [questions.put("i", one, report(one), SPAN) for one in incidents]


def taken(questions: Questions) -> list[str]:
    names = []
    while (question := questions.take()) is not None:
        names.append(question.incident.id)
    return names


def test_pages_come_first_then_what_costs_most_then_what_came_first():
    clock = iter(range(100))
    questions = Questions(9, lambda: float(next(clock)))
    some = [incident("a", 1), incident("b", 5), incident("c", 5), incident("page", 2, page=True)]
    filled(questions, *some)
    assert taken(questions) == ["page", "b", "c", "a"]


def test_beyond_the_limit_the_cheapest_is_dropped_the_new_one_if_it_is_that():
    questions = Questions(2)
    put = filled(questions, *(incident(name, cost) for name, cost in (("a", 1), ("b", 5))))
    assert put == [True, True]
    assert filled(questions, incident("c", 3), incident("d", 2)) == [False, False]
    assert taken(questions) == ["b", "c"]


def test_news_take_the_place_of_what_waits_and_keep_its_age():
    now = 0.0
    questions = Questions(9, lambda: now)
    filled(questions, incident("a", 1))
    now = 7.0
    filled(questions, incident("a", 9))
    question = questions.take()
    assert question is not None
    assert (question.incident.impact_ns, question.asked_at) == (9, 0.0)


def test_an_incident_is_not_asked_about_twice_at_once():
    questions = Questions(9)
    filled(questions, incident("a", 1))
    question = questions.take()
    assert question is not None
    filled(questions, incident("a", 2))
    assert questions.take() is None
    questions.done(question)
    assert taken(questions) == ["a"]
