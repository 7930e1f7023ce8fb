"""gradio_client: calls, a stream, several clients at once, files up and down, an error."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError


def calls_of(one: Client) -> list[str]:
    """Five calls, one after the other."""
    return [one.predict(str(number), api_name="/greet") for number in range(5)]


client = Client(sys.argv[1], verbose=False)
found = {"greet": client.predict("Ada", api_name="/greet")}
job = client.submit(5, api_name="/count")
job.result(timeout=60)
found["stream"] = job.outputs()
# of one client at once, Gradio itself loses one now and then: it closes their common stream while
# the client sends the next one
with ThreadPoolExecutor(4) as pool:
    clients = [Client(sys.argv[1], verbose=False) for _ in range(4)]
    calls = [pool.submit(calls_of, each) for each in clients]
    found["many"] = [call.result(timeout=60) for call in calls]
large = Path("large.bin")
large.write_bytes(b"\x00\xff" * 2_500_000)
found["size"] = client.predict(handle_file(str(large)), api_name="/size")
text = Path("text.txt")
text.write_text("loud")
shouted = client.predict(handle_file(str(text)), api_name="/shout")
found["shout"] = Path(shouted).read_text()
try:
    client.predict(api_name="/fails")
except AppError as error:
    found["error"] = str(error)
print(json.dumps(found))
