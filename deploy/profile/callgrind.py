#!/usr/bin/env python3
"""Where the instructions of one order go, counted by valgrind's callgrind: the same on a busy machine as on a quiet one.

    deploy/profile/callgrind.py [--orders 1000] [--binary PATH] [--keep FOLDER]

Builds the binary with symbols (target/profile), starts nats-server, the simulators and the four services in one process
under callgrind, places orders over HTTP until every mail is out, and counts what happened between the warm-up and the
end. What the kernel does (network, fsync) is not counted; `millrace bench` shows its share of the processor time.

Needs valgrind, and a nats-server on the PATH or provisioned by an earlier `cargo run`.
"""

import argparse, glob, http.client, json, os, re, shutil, socket, subprocess, sys, tempfile, threading, time

# A component is what its crates do, by the name of the crate; workspace crates by the path of the file.
COMPONENTS = {
    "SQL: SQLite itself": "libsqlite3-sys",
    "SQL: rusqlite, writer, stores": "rusqlite hashlink refinery fallible-iterator fallible-streaming-iterator store",
    "JSON, schemas": "serde serde_core serde_json itoa ryu zmij jsonschema referencing fluent-uri serde_path_to_error",
    "NATS client": "async-nats nuid nkeys",
    "events, outbox, consumer": "toolkit",
    "HTTP, both sides": "hyper hyper-util axum axum-core httparse httpdate http http-body http-body-util tower tower-service "
                        "tower-layer tower-http matchit mime problem api",
    "gateway's client": "reqwest url form_urlencoded percent-encoding hyper-rustls ipnet gateway idna iri-string",
    "mail": "lettre email-encoding quoted_printable email_address email nom",
    "TLS, random numbers": "rustls ring webpki untrusted getrandom rand rand_core rand_chacha chacha20 fastrand",
    "tracing, logs": "tracing tracing-core tracing-subscriber sharded-slab matchers telemetry regex-automata log",
    "metrics": "metrics metrics-util metrics-exporter-prometheus sketches-ddsketch evmap crossbeam-epoch quanta rapidhash",
    "runtime: tokio, threads": "tokio tokio-util tokio-stream mio parking_lot parking_lot_core slab libc nptl crossbeam-utils socket2",
    "domain, contracts": "order payment inventory notification contracts",
    "times, ids, hashes": "time uuid sha2 digest block-buffer deranged",
}
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
    arguments.add_argument("--read", metavar="FILE", help="only read what callgrind wrote earlier, for so many orders")
    given = arguments.parse_args()
    if given.read:
        return report(given.read, given.orders, given.top)
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
                "MILLRACE_TOPOLOGY_ACK_WAIT": "1m", "MILLRACE_ORDER_SUBMIT_PATIENCE": "5m",
                "MILLRACE_PAYMENT_GATEWAY_TIMEOUT_MS": "60000", "MILLRACE_PAYMENT_GRACE": "10m",
                "MILLRACE_NOTIFICATION_EMAIL_TIMEOUT_MS": "60000", "MILLRACE_NOTIFICATION_CLAIM": "10m",
                "MILLRACE_NATS_REQUEST_TIMEOUT_MS": "60000", "MILLRACE_OUTBOX_SWEEP_AFTER": "10m",
                # What happens so often a second would be counted fifty times as often for an order.
                "MILLRACE_PAYMENT_SWEEP_EVERY": "20s", "MILLRACE_NOTIFICATION_SWEEP_EVERY": "50s",
                "MILLRACE_OUTBOX_SWEEP_EVERY": "4m", "MILLRACE_OUTBOX_CONFIRM_EVERY": "10s",
                "MILLRACE_ORDER_DEADLINE_POLL": "50s", "MILLRACE_INBOX_PRUNE_EVERY": "25m",
                # valgrind counts `rep movsb` once for each byte: without it a copy costs what it costs.
                "GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=1000000000:"
                                  "glibc.cpu.x86_rep_stosb_threshold=1000000000"}

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
    seen, since = 0, time.monotonic()
    while seen < 2 * expected:
        time.sleep(0.5)
        received = json.loads(get(port["mail"], "/messages?limit=0")[1])["received"]
        if received > seen:
            seen, since = received, time.monotonic()
        elif time.monotonic() - since > 300:
            sys.exit("%d of %d mails are out, and none has been for five minutes" % (seen, 2 * expected))
    time.sleep(3)  # the last acknowledgements and timeline entries


def report(out, orders, top):
    profile = Profile(out)
    total = sum(profile.own.values())
    print("\n%s instructions for an order. What the standard library and libc do (allocating, copying, formatting, hashing) is"
          "\ncounted for whoever called them.\n" % thousands(total / orders))
    print("%8s %12s  %12s" % ("", "an order", "in libraries"))
    for component, (cost, helpers) in sorted(profile.components().items(), key=lambda pair: -sum(pair[1])):
        print("%6.1f %% %12s  %12s  %s" % (100 * (cost + helpers) / total, thousands((cost + helpers) / orders),
                                           thousands(helpers / orders), component))
    print("\nof the standard library and libc\n")
    for kind, cost in sorted(profile.kinds().items(), key=lambda pair: -pair[1]):
        print("%6.1f %% %12s  %s" % (100 * cost / total, thousands(cost / orders), kind))
    for title, costs in ("itself", profile.self_costs()), ("and what it calls", profile.inclusive()):
        print("\nfunctions, each %s\n" % title)
        for name, cost in sorted(costs.items(), key=lambda pair: -pair[1])[:top]:
            print("%6.2f %% %12s  %s" % (100 * cost / total, thousands(cost / orders), name[:140]))


class Profile:
    """The graph of calls that callgrind wrote."""

    def __init__(self, out):
        self.own, self.calls, self.files = {}, {}, {}
        names, paths, function, path, called = {}, {}, None, None, None
        expand = lambda table, text: table.setdefault(*text.split(" ", 1)) if " " in text else table.get(text, "")
        with open(out, errors="replace") as lines:
            for line in lines:
                line = line.rstrip()
                kind, _, rest = line.partition("=")
                if kind == "fn":
                    function = expand(names, rest)
                elif kind in ("fl", "fi", "fe"):
                    path = expand(paths, rest)
                elif kind in ("cfi", "cfl"):
                    expand(paths, rest)
                elif kind == "cfn":
                    callee = expand(names, rest)
                elif kind == "calls":
                    called = callee
                elif line and (line[0].isdigit() or line[0] in "+-*"):
                    cost = int(line.split()[1])
                    if called:
                        arc = self.calls.setdefault(called, {})
                        arc[function] = arc.get(function, 0) + cost
                        called = None
                    else:
                        key = (function, path)
                        self.own[key] = self.own.get(key, 0) + cost

    def component(self, function, path):
        """Of code in this file; None for what only helps others."""
        found = re.search(r"/index\.crates\.io-[^/]*/(.+?)-\d[^/]*/", path)
        crate = found.group(1) if found else self.workspace(path) or self.of_name(function)
        for component, crates in COMPONENTS.items():
            if crate in crates.split():
                return component
        return None

    @staticmethod
    def workspace(path):
        found = re.search(r"(?:^|/)(crates|services|app)/([a-z]+)/src/(.*)", path)
        if not found:
            return "libc" if re.search(r"nptl|pthread", path) else None
        _, crate, file = found.groups()
        for word in ("store", "api", "gateway", "email", "telemetry", "problem"):
            if re.match(r"%s(/|\.rs)" % word, file) and (crate == "millrace") == (word in ("telemetry", "problem")) or (
                    word == "store" and file.startswith("store")):
                return word
        return {"millrace": "toolkit"}.get(crate, crate)

    @staticmethod
    def of_name(function):
        """Functions of generic code bear the name of what they were made for."""
        crate = re.match(r"<*(?:&|mut |dyn )*([a-z_0-9]+)::", function)
        crate = crate.group(1).replace("_", "-") if crate else ""
        if crate in ("core", "alloc", "std", "futures-util", "futures-core", "hashbrown", "bytes"):
            return None
        return {"millrace": "toolkit"}.get(crate, crate if crate != "api" else None)

    def components(self):
        sums, floating = {}, {}
        for (function, path), cost in self.own.items():
            component = self.component(function, path)
            if component:
                sums.setdefault(component, [0, 0])[0] += cost
            else:
                floating[function] = floating.get(function, 0) + cost
        home = {function: self.of_home(function) for function in {f for f, _ in self.own} | set(self.calls)}
        # What helps is handed up to its callers, each its share, until it comes to somebody who has a component.
        for _ in range(60):
            higher = {}
            for function, cost in floating.items():
                callers = {caller: share for caller, share in self.calls.get(function, {}).items() if caller != function}
                whole = sum(callers.values())
                if not whole:
                    sums.setdefault("nobody's", [0, 0])[1] += cost
                for caller, share in callers.items():
                    part = cost * share / whole if whole else 0
                    if home.get(caller):
                        sums.setdefault(home[caller], [0, 0])[1] += part
                    else:
                        higher[caller] = higher.get(caller, 0) + part
            floating = higher
        sums.setdefault("nobody's", [0, 0])[1] += sum(floating.values())
        return sums

    def of_home(self, function):
        """The component of most of a function's own code."""
        costs = self.by_function().get(function, {})
        found = {}
        for path, cost in costs.items():
            component = self.component(function, path)
            if component:
                found[component] = found.get(component, 0) + cost
        return max(found, key=found.get) if found else None

    def by_function(self):
        if not self.files:
            for (function, path), cost in self.own.items():
                self.files.setdefault(function, {})[path] = cost
        return self.files

    def kinds(self):
        kinds = {}
        for (function, path), cost in self.own.items():
            if self.component(function, path):
                continue
            kind = ("allocating" if re.search(r"malloc|calloc|realloc|free|_int_|__rust|__rdl|unlink_chunk|arena|raw_vec", function + path)
                    else "copying, comparing" if re.search(r"mem(cpy|move|set|cmp|chr)|bcmp|strlen", function + path)
                    else "hashing, tables" if re.search(r"sip|hash", function + path) else "formatting" if "/fmt/" in path
                    else "other")
            kinds[kind] = kinds.get(kind, 0) + cost
        return kinds

    def self_costs(self):
        return {name: sum(costs.values()) for name, costs in self.by_function().items()}

    def inclusive(self):
        """Of functions of ours and of crates that are called from elsewhere: the sum of their calls."""
        boring = r"^<*(core|std|alloc|tokio|futures|__rust)|malloc|free$|main|clone|start_thread|lang_start"
        sums = {called: sum(callers.values()) for called, callers in self.calls.items()}
        return {name: cost for name, cost in sums.items() if not re.search(boring, name) and "'" not in name[-3:]}


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
