"""A command as a task: the payload comes on standard input, lines of JSON say how it goes. See worker.toml beside it."""
import json, sys, time


def say(**word):
    print(json.dumps(word), flush=True)


month = json.load(sys.stdin)["month"]
print(f"reading the orders of {month}", flush=True)  # any other line is one of the task's log
total = 0
for day in range(1, 31):
    total += day * 100
    time.sleep(0.1)
    say(progress={"current": day, "total": 30, "message": f"{month}-{day:02}"})
say(result={"month": month, "total": total})
