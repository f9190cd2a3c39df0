"""A worker over plain HTTP, with nothing but Python's own library: worker.py [HUB]"""
import json, sys, threading, time, urllib.error, urllib.request

HUB = (sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080") + "/api/v1"


def post(path, body):
    request = urllib.request.Request(HUB + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=90) as answer:
        return json.load(answer)


def word_count(say, texts):
    for n, text in enumerate(texts, 1):
        say("log", lines=[{"message": f"reading text {n}"}])
        if say("progress", progress={"current": n, "total": len(texts)})["cancel_requested"]:
            return say("cancelled")
    say("complete", result=sum(len(text.split()) for text in texts))


def run(task, attempt, heartbeat_ms):
    say = lambda verb, **body: post(f"/tasks/{task['task_id']}/attempts/{attempt}/{verb}", body)
    done = threading.Event()
    beat = lambda: [say("heartbeat") for _ in iter(lambda: done.wait(heartbeat_ms / 1000), True)]
    threading.Thread(target=beat, daemon=True).start()  # keeps the lease while a long task is silent
    try:
        word_count(say, task["payload"])
    except Exception as error:
        say("fail", error={"kind": type(error).__name__, "message": str(error)})
    done.set()


while True:
    try:
        claim = {"worker_id": "worker.py", "task_types": ["word-count"], "wait_ms": 30_000}
        for given in (answer := post("/worker/claim", claim))["tasks"]:
            run(given["task"], given["attempt"], answer["heartbeat_ms"])
    except (urllib.error.URLError, OSError) as error:  # the hub is away, or the attempt is no longer ours
        print(error, file=sys.stderr)
        time.sleep(1)
