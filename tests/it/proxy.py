"""Starts nginx with deploy/nginx.conf before a server that answers everything, and asks for what must not pass."""

import http.client, http.server, pathlib, re, socket, ssl, subprocess, sys, tempfile, threading, time

nginx, folder = sys.argv[1], tempfile.TemporaryDirectory()
home = pathlib.Path(folder.name)
home.chmod(0o755)  # If root starts nginx, its workers are somebody else.
seen = []


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        seen.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_GET = do_POST

    def log_message(self, *_):
        pass


upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
threading.Thread(target=upstream.serve_forever, daemon=True).start()
subprocess.run(
    ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
     "-keyout", home / "server.key", "-out", home / "server.pem"], check=True, capture_output=True)
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
text = pathlib.Path("deploy/nginx.conf").read_text()
text = text.replace("superlink:8000", f"127.0.0.1:{upstream.server_port}").replace("listen 8443", f"listen 127.0.0.1:{port}")
text = text.replace("/etc/nginx/tls", str(home)).replace("/tmp/nginx.pid", str(home / "pid"))
text = re.sub(r"http \{", "http {\n" + "".join(
    f"    {kind}_temp_path {home / kind};\n" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]), text, count=1)
(home / "nginx.conf").write_text("daemon off;\n" + text)
command = [nginx, "-p", home, "-c", home / "nginx.conf", "-e", "stderr"]
subprocess.run([*command, "-t"], check=True)
server = subprocess.Popen(command)


def ask(method, path, body=b""):
    context = ssl.create_default_context(cafile=home / "server.pem")
    context.check_hostname = False
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.putheader("content-length", str(len(body)))
    connection.endheaders()
    try:
        connection.send(body)
    except OSError:  # It need not read all of a body that it refuses.
        pass
    return connection.getresponse().status


try:
    for _ in range(100):
        try:
            ask("POST", "/")
            break
        except OSError:
            time.sleep(0.1)
    for path in ["/v1/control/list-runs", "/v1/runtime/acquire-task", "/", "/health", "/docs", "/openapi.json", "/v1/fleet",
                 "/v1/fleet/", "/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs",
                 "/v1/fleet/..%2fcontrol/list-runs", "/v1/fleet//../control/list-runs", "//v1/control/list-runs",
                 "/v1//fleet/pull-messages", "/v1/fleet/x/../../control/list-runs", "/v1/fleet/pull-messages?a=b",
                 "/v1/control/../fleet/pull-messages", "http://superlink/v1/control/list-runs"]:
        assert ask("POST", path) == 404, path
    assert ask("GET", "/v1/fleet/pull-messages") == 405
    assert ask("POST", "/v1/fleet/push-object", b"x" * (9 << 20)) == 413
    assert seen == [], seen
    for path in ["/v1/fleet/pull-messages", "/v1/fleet/confirm-message-received"]:
        assert ask("POST", path) == 200, path
    assert ask("POST", "/v1/fleet/push-object", b"x" * ((5 << 20) + 4096)) == 200
    assert seen == ["/v1/fleet/pull-messages", "/v1/fleet/confirm-message-received", "/v1/fleet/push-object"], seen
finally:
    server.terminate()
    server.wait()
