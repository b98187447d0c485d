"""What schemathesis checks of each answer besides its own checks: a request that the description takes is taken."""

import schemathesis
from schemathesis.generation import GenerationMode

# What the description cannot say of a valid one: a cursor comes from a page, a URL is more than its pattern, and how much
# memory a worker may have is a setting.
BEYOND_A_SCHEMA = {"cursor", "source.url", "memory_mib"}


def ends_before_it_begins(query):
    """No schema compares two parameters."""
    return "from_us" in query and "until_us" in query and int(query["from_us"]) > int(query["until_us"])


@schemathesis.check
def what_the_description_takes_is_taken(ctx, response, case):
    """Refused only for what it names (404, 409, 422: no such model), not for its form."""
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE or response.status_code < 400:
        return
    problem = response.json()
    is_about_form = response.status_code in (400, 406, 415) or problem["code"] == "invalid_scenario"
    fields = {problem["field"], *(error["field"] for error in problem.get("errors", []))}
    beyond = BEYOND_A_SCHEMA | ({"until_us"} if ends_before_it_begins(case.query or {}) else set())
    assert not is_about_form or fields & beyond, f"refused for its form: {problem}"
