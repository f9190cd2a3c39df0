"""What Schemathesis is told of the hub beside its document."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """Calls that wait do not wait long: thousands of them are to be over in minutes."""
    for part in (case.query, case.body):
        if not hasattr(part, "get"):
            continue
        try:
            wait = int(part.get("wait_ms", 0))
        except (TypeError, ValueError):
            continue
        if 50 < wait <= 50_000:
            part["wait_ms"] = 50
