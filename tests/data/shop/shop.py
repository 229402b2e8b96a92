"""A small web shop: orders come by HTTP, wait in a queue, and are booked by workers."""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg2
import redis

PASSWORD = Path("/run/secrets/password").read_text().strip()


def database():
    return psycopg2.connect(host="db", user="postgres", password=PASSWORD)


def store(name):
    return redis.Redis(host=name)


def migrate():
    with database() as db, db.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE orders (id serial PRIMARY KEY, what text NOT NULL, worker text NOT NULL)"
        )


class Api(BaseHTTPRequestHandler):
    def do_POST(self):
        what = self.rfile.read(int(self.headers["Content-Length"])).decode()
        store("queue").rpush("orders", what)
        self.answer({"queued": what})

    def do_GET(self):
        cache = store("cache")
        seen = cache.get("count")
        self.answer({"orders": int(seen or 0)})

    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


class Metrics(Api):
    def do_GET(self):
        with database() as db, db.cursor() as cursor:
            cursor.execute("SELECT worker, count(*) FROM orders GROUP BY worker")
            self.answer(dict(cursor.fetchall()))


def serve(handler):
    ThreadingHTTPServer(("", 8000), handler).serve_forever()


def worker():
    queue, mail = store("queue"), store("queue")
    while True:
        _, what = queue.blpop("orders")
        with database() as db, db.cursor() as cursor:
            cursor.execute(
                "INSERT INTO orders (what, worker) VALUES (%s, %s)", (what.decode(), os.uname().nodename)
            )
        mail.rpush("mail", what)


def mailer():
    queue = store("queue")
    while True:
        _, what = queue.blpop("mail")
        print("mail:", what.decode())


def counter():
    cache = store("cache")
    while True:
        with database() as db, db.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM orders")
            cache.set("count", cursor.fetchone()[0])
        time.sleep(0.2)


def check():
    from urllib.request import urlopen

    urlopen("http://127.0.0.1:8000/", timeout=5).read()


ROLES = {
    "migrate": migrate,
    "api": lambda: serve(Api),
    "metrics": lambda: serve(Metrics),
    "worker": worker,
    "mailer": mailer,
    "counter": counter,
    "check": check,
}
ROLES[sys.argv[1]]()
