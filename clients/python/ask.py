"""Asks a service of Millrace and prints its answer:

python ask.py api.inventory.stock '{"product_id": "espresso-cup"}'

Ends with exit code 0 after an answer and 1 after an error, which is printed as JSON too.
"""

import argparse
import asyncio
import json
import sys

from millrace import connect
from nats.errors import NoRespondersError

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("subject", help="see discover.py for what there is")
options.add_argument("question", nargs="?", default="{}", help="JSON")
options.add_argument("--patience", type=float, default=5, help="seconds to wait for the answer")


async def ask(connection, subject: str, question: str, patience: float) -> dict:
    # The service stops working on a question whose asker has gone, if it is told how long that waits.
    headers = {"Millrace-Deadline-Ms": str(int(patience * 1000))}
    try:
        answer = await connection.request(subject, question.encode(), timeout=patience, headers=headers)
    except NoRespondersError:
        return {"error": {"code": 503, "description": f"nobody answers on {subject}"}}
    except asyncio.TimeoutError:
        return {"error": {"code": 504, "description": f"no answer within {patience} s"}}
    # The NATS services framework says in headers that something went wrong, with the codes of HTTP.
    headers = answer.headers or {}
    if "Nats-Service-Error-Code" in headers:
        error = {"code": int(headers["Nats-Service-Error-Code"]), "description": headers.get("Nats-Service-Error")}
        if "Millrace-Retry-After-Ms" in headers:
            error["retry_after_ms"] = int(headers["Millrace-Retry-After-Ms"])
        return {"error": error}
    return {"answer": json.loads(answer.data)}


async def main(args) -> None:
    connection = await connect("ask")
    outcome = await ask(connection, args.subject, args.question, args.patience)
    await connection.close()
    print(json.dumps(outcome))
    sys.exit("error" in outcome)


asyncio.run(main(options.parse_args()))
