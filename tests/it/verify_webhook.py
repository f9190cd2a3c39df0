"""Verifies a message with the library of Standard Webhooks: `{"secret","headers","body"}` as the one argument."""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

asked = json.loads(sys.argv[1])
try:
    Webhook(asked["secret"]).verify(asked["body"], asked["headers"])
    print("verified")
except WebhookVerificationError as why:
    print(why)
