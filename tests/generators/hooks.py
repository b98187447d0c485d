"""What schemathesis checks of each answer besides its own checks: a request that the description takes is taken."""

import schemathesis
from schemathesis.generation import GenerationMode

# What the description cannot say of a valid one: a cursor comes from a page, a URL or a reference is more than its pattern,
# and what a worker and its hooks may have is a setting.
BEYOND_A_SCHEMA = {"cursor", "from", "source.url", "memory_mib"} | {
    f"limits.{name}" for name in ("hook_call_ms", "hook_memory_mib", "hook_state_kib")
}


def beyond_a_schema(case):
    """The fields of a request that may be refused although the description takes them."""
    query, body = case.query or {}, case.body if isinstance(case.body, dict) else {}
    fields = set(BEYOND_A_SCHEMA)
    # No schema compares two numbers.
    if "from_us" in query and "until_us" in query and int(query["from_us"]) > int(query["until_us"]):
        fields.add("until_us")
    part = body.get("range") or {}
    begin, end = part.get("from_us"), part.get("until_us")
    if begin is not None and end is not None and begin >= end:
        fields.add("range.until_us")
    return fields


@schemathesis.check
def what_the_description_takes_is_taken(ctx, response, case):
    """Refused only for what it names (404, 409, 422: no such model), not for its form."""
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE or response.status_code < 400:
        return
    problem = response.json()
    is_about_form = response.status_code in (400, 406, 415) or problem["code"] == "invalid_scenario"
    fields = {problem["field"], *(error["field"] for error in problem.get("errors", []))}
    assert not is_about_form or fields & beyond_a_schema(case), f"refused for its form: {problem}"
