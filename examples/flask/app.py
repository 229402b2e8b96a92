"""A notice board: what is posted is shown, as long as the container lives."""

from flask import Flask, redirect, render_template, request

app = Flask(__name__)
notices: list[str] = []


@app.get("/")
def board() -> str:
    return render_template("board.html", notices=notices)


@app.post("/")
def post() -> object:
    text = request.form.get("text", "").strip()[:200]
    if text:
        notices.append(text)
        del notices[:-50]
    return redirect("/")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
