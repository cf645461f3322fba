"""Lists the services that answer questions now, one line of JSON for each instance."""

import asyncio

from millrace import connect


async def main() -> None:
    connection = await connect("discover")
    inbox = connection.new_inbox()
    answers = await connection.subscribe(inbox)
    # The NATS services framework: every instance of every service answers.
    await connection.publish("$SRV.INFO", b"", reply=inbox)
    try:
        while True:
            # Nobody knows how many there are, so the list ends when nobody has said anything for a while.
            print((await answers.next_msg(timeout=1)).data.decode(), flush=True)
    except asyncio.TimeoutError:
        await connection.close()


asyncio.run(main())
