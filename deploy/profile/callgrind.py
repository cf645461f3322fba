#!/usr/bin/env python3
"""Where the instructions of one order go, counted by valgrind's callgrind: the same on a busy machine as on a quiet one.

    deploy/profile/callgrind.py [--orders 1000] [--binary PATH] [--keep FOLDER]

Builds the binary with symbols (target/profile), starts nats-server, the simulators and the four services in one process
under callgrind, places orders over HTTP until every mail is out, and counts what happened between the warm-up and the
end. What the kernel does (network, fsync) is not counted; `millrace bench` shows its share of the processor time.

Needs valgrind, and a nats-server on the PATH or provisioned by an earlier `cargo run`.
"""

import argparse, glob, http.client, json, os, re, shutil, socket, subprocess, sys, tempfile, threading, time

# The first pattern that fits what callgrind_annotate calls a function names its component.
COMPONENTS = [
    ("SQLite", r"sqlite3|libsqlite3"),
    ("SQL, our side: rusqlite, writer, stores", r"rusqlite|millrace::store|[a-z]+::store::|hashlink"),
    ("JSON Schema", r"jsonschema|referencing|fluent_uri"),
    ("JSON: serde", r"serde_json|serde|itoa|ryu|zmij"),
    ("TLS", r"rustls|ring::|ring_core|webpki"),
    ("tracing, metrics", r"tracing|metrics|millrace::telemetry|sharded_slab|matchers|evmap|opentelemetry"),
    ("mail: lettre", r"lettre|email|quoted_printable"),
    ("gateway's client: reqwest", r"reqwest|hyper_util::client|hyper::client|hyper_rustls|tower_http|payment::gateway|url::|form_urlencoded"),
    ("NATS client: async-nats", r"async_nats|nuid|nkeys|tokio_websockets"),
    ("HTTP: hyper, axum", r"hyper|axum|httparse|httpdate|h2::|matchit|http_body|tower|http::|millrace::problem"),
    ("toolkit: consumer, outbox, events", r"millrace::"),
    ("services and contracts", r"order::|payment::|inventory::|notification::|contracts::"),
    ("times and ids", r"\btime::|uuid|chrono|getrandom"),
    ("allocation", r"malloc|calloc|realloc|\bfree\b|_int_|unlink_chunk|alloc::alloc|__rust_|__rdl_|arena|tcache|mi_"),
    ("copying and comparing", r"mem(cpy|move|set|cmp|chr)|bcmp|strlen|strcmp"),
    ("runtime: tokio, futures", r"tokio|mio::|futures|parking_lot|slab|crossbeam|pthread|epoll|futex|syscall|__send|__recv|__read|__write|clock_gettime|std::sys"),
    ("hashing", r"sha2|sha256|siphash|sip::|hashbrown|foldhash|ahash|rapidhash"),
    ("text and collections", r"core::|alloc::|std::|bytes::|memchr|smallvec|indexmap"),
]
ITEMS = [[{"product_id": "espresso-cup", "quantity": 1}],
         [{"product_id": "coffee-beans-1kg", "quantity": 1}, {"product_id": "espresso-cup", "quantity": 1}]]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--orders", type=int, default=1000)
    arguments.add_argument("--warm-up", type=int, default=100)
    arguments.add_argument("--connections", type=int, default=64)
    arguments.add_argument("--binary", help="a binary with symbols; without it, one is built")
    arguments.add_argument("--keep", help="a folder for what callgrind writes")
    arguments.add_argument("--top", type=int, default=40, help="functions that are listed")
    given = arguments.parse_args()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    binary = os.path.abspath(given.binary) if given.binary else build(root)
    folder = given.keep or tempfile.mkdtemp(prefix="millrace-profile-")
    os.makedirs(folder, exist_ok=True)
    running = []
    try:
        profile(given, binary, folder, running)
    finally:
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
    if not given.keep:
        shutil.rmtree(folder, ignore_errors=True)


def build(root):
    target = os.path.join(root, "target", "profile")
    # Symbols, and functions that can still be told apart.
    settings = {"CARGO_PROFILE_RELEASE_DEBUG": "1", "CARGO_PROFILE_RELEASE_LTO": "off",
                "CARGO_PROFILE_RELEASE_STRIP": "none", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
                "CARGO_TARGET_DIR": target}
    subprocess.run(["cargo", "build", "--release", "-p", "app"], cwd=root, env={**os.environ, **settings}, check=True)
    return os.path.join(target, "release", "millrace")


def profile(given, binary, folder, running):
    port = {name: free_port() for name in ("nats", "api", "ops", "simulators", "gateway", "smtp", "mail", "sms")}
    at = lambda name: "127.0.0.1:%d" % port[name]
    settings = {"NATS_URL": "nats://" + at("nats"), "MILLRACE_DATABASE_URL": "sqlite:%s/{service}.db" % folder,
                "MILLRACE_HTTP_LISTEN": at("api"), "MILLRACE_SIMULATORS_GATEWAY_LISTEN": at("gateway"),
                "MILLRACE_SIMULATORS_SMTP_LISTEN": at("smtp"), "MILLRACE_SIMULATORS_MAIL_LISTEN": at("mail"),
                "MILLRACE_SIMULATORS_SMS_LISTEN": at("sms"), "MILLRACE_PAYMENT_GATEWAY_URL": "http://" + at("gateway"),
                "MILLRACE_NOTIFICATION_EMAIL_URL": "smtp://" + at("smtp"),
                "MILLRACE_NOTIFICATION_SMS_URL": "http://" + at("sms"),
                # Slow is not gone: fifty times slower than in life must trip nothing.
                "MILLRACE_TOPOLOGY_ACK_WAIT": "10m", "MILLRACE_ORDER_SUBMIT_PATIENCE": "5m",
                "MILLRACE_PAYMENT_GATEWAY_TIMEOUT_MS": "60000", "MILLRACE_PAYMENT_GRACE": "10m",
                "MILLRACE_NOTIFICATION_EMAIL_TIMEOUT_MS": "60000", "MILLRACE_NOTIFICATION_CLAIM": "10m",
                "MILLRACE_NATS_REQUEST_TIMEOUT_MS": "60000", "MILLRACE_OUTBOX_SWEEP_AFTER": "10m"}

    def start(name, command, ops):
        log = open(os.path.join(folder, name + ".log"), "w")
        environment = {**os.environ, **settings, "MILLRACE_OPS_LISTEN": at(ops)}
        running.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment))
        return running[-1]

    nats = ["-js", "-a", "127.0.0.1", "-p", str(port["nats"]), "-sd", os.path.join(folder, "nats")]
    start("nats", [nats_server(), *nats], "ops")
    wait("nats-server", lambda: socket.create_connection(("127.0.0.1", port["nats"]), 1).close() is None)
    start("simulators", [binary, "serve", "simulators"], "simulators")
    # Much in stock, so that every order is confirmed.
    demo = os.path.join(folder, "catalog.json")
    price = {"minor": 690, "currency": "EUR"}
    with open(demo, "w") as file:
        json.dump({"products": [{"product_id": id, "name": id, "unit_price": price, "opening_stock": 1000000}
                                for id in ("espresso-cup", "coffee-beans-1kg")]}, file)
    subprocess.run([binary, "catalog", "import", demo], env={**os.environ, **settings}, cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)
    out = os.path.join(folder, "callgrind.out")
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=" + out, "--instr-atstart=no"]
    services = start("services", valgrind + [binary, "serve", "order", "payment", "inventory", "notification"], "ops")
    wait("the services", lambda: get(port["ops"], "/readyz")[0] == 200, 600)
    wait("the catalog", lambda: len(json.loads(get(port["api"], "/catalog")[1])["products"]) == 2, 60)
    time.sleep(5)  # inventory reads the catalog at its own pace

    print("warming up with %d orders" % given.warm_up, file=sys.stderr)
    load(port, given.warm_up, given.connections, 0, given.warm_up)
    control(services.pid, "on")
    print("counting %d orders" % given.orders, file=sys.stderr)
    load(port, given.orders, given.connections, given.warm_up, given.warm_up + given.orders)
    control(services.pid, "off")
    services.terminate()
    services.wait(600)
    running.remove(services)
    report(out, given.orders, given.top)


def load(port, orders, connections, first, expected):
    """Places so many orders and waits until all there were are told of by two mails each."""
    left, lock = list(range(first, first + orders)), threading.Lock()

    def customer():
        connection = http.client.HTTPConnection("127.0.0.1", port["api"], timeout=600)
        while True:
            with lock:
                if not left:
                    return
                number = left.pop()
            body = json.dumps({"customer_id": "c%d" % (number % 100), "email": "c%d@example.org" % number,
                               "payment_method": "pm_card_visa", "items": ITEMS[number % 2]})
            headers = {"Content-Type": "application/json", "Idempotency-Key": "profile-%d" % number}
            connection.request("POST", "/orders", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 202:
                print("an order was refused: %d %s" % (answer.status, text), file=sys.stderr)

    customers = [threading.Thread(target=customer) for _ in range(connections)]
    [customer.start() for customer in customers]
    [customer.join() for customer in customers]
    told = lambda: json.loads(get(port["mail"], "/messages?limit=0")[1])["received"] >= 2 * expected
    wait("%d mails" % (2 * expected), told, 1800)
    time.sleep(3)  # the last acknowledgements and timeline entries


def report(out, orders, top):
    annotate = ["callgrind_annotate", "--threshold=100", "--show-percs=no", "--tree=none"]
    lines = subprocess.run([*annotate, "--inclusive=no", out], capture_output=True, text=True, check=True).stdout
    sums, rest, total = {}, {}, 0
    for cost, name in functions(lines):
        total += cost
        component = next((component for component, pattern in COMPONENTS if re.search(pattern, name)), "other")
        sums[component] = sums.get(component, 0) + cost
        if component == "other":
            rest[name] = cost
    print("\n%s instructions for an order, by component of the function that ran (self)\n" % thousands(total / orders))
    for component, cost in sorted(sums.items(), key=lambda pair: -pair[1]):
        print("%6.1f %%  %12s  %s" % (100 * cost / total, thousands(cost / orders), component))
    for kind in ("no", "yes"):
        lines = subprocess.run([*annotate, "--inclusive=" + kind, out], capture_output=True, text=True, check=True).stdout
        print("\nfunctions, %s\n" % ("self" if kind == "no" else "inclusive"))
        shown = [(cost, name) for cost, name in functions(lines) if kind == "no" or not boring(name)]
        for cost, name in shown[:top * (1 if kind == "no" else 4)]:
            print("%6.2f %%  %12s  %s" % (100 * cost / total, thousands(cost / orders), short(name)))
    if rest:
        print("\nnot assigned: " + ", ".join(short(name) for name in list(rest)[:10]))


def functions(lines):
    for line in lines.splitlines():
        found = re.match(r"\s*([\d,]+)\s+(\S.*)$", line)
        if found and "PROGRAM TOTALS" not in line:
            yield int(found.group(1).replace(",", "")), found.group(2)


def boring(name):
    return re.search(r"tokio::|std::|core::|clone|start_thread|main|futures_util::future", name.split(" [")[0]) is not None


def short(name):
    name = re.sub(r"^.*?(?:/src/|\?\?\?:|/rustc/[^:]*:)", "", name)
    return re.sub(r" \[[^]]*\]$", "", name)[:150]


def thousands(number):
    return f"{number:,.0f}"


def control(pid, state):
    subprocess.run(["callgrind_control", "-i", state, str(pid)], check=True, stdout=subprocess.DEVNULL)


def nats_server():
    found = shutil.which("nats-server") or next(iter(glob.glob(
        os.path.expanduser("~/.cache/millrace/nats-server-*/**/nats-server"), recursive=True)), None)
    return found or sys.exit("there is no nats-server: run `cargo run` once, or install it")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def wait(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            pass
        if time.monotonic() > deadline:
            sys.exit("%s: not within %d s" % (what, seconds))
        time.sleep(0.2)


if __name__ == "__main__":
    main()
