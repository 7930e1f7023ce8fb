"""gradio_client: calls, a stream, many at once, files up and down, an error."""

import json
import sys
from pathlib import Path

from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

client = Client(sys.argv[1], verbose=False)
found = {"greet": client.predict("Ada", api_name="/greet")}
job = client.submit(5, api_name="/count")
job.result(timeout=60)
found["stream"] = job.outputs()
jobs = [client.submit(str(number), api_name="/greet") for number in range(20)]
found["many"] = sorted({job.result(timeout=60) for job in jobs}) == sorted(
    f"Hello {number}" for number in range(20)
)
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
