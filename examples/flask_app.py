"""Log in to CARTO in a Flask app, to which people come back by themselves.

Register the app as a "SPA OAuth client" on the Developers page of the CARTO Workspace, with the callback below, which
is compared exactly. Then: CARTO_AUTH_CLIENT_ID=... flask --app examples/flask_app.py run
"""

import os
import secrets

from flask import Flask, redirect, render_template_string, request, session

from carto_auth import CartoAuth, CredentialsError, LoginRequired

CALLBACK = os.environ.get("CALLBACK", "http://localhost:5000/login/done")

app = Flask(__name__)
app.secret_key = secrets.token_bytes(32)
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"

# In the memory of one process. A larger app keeps them on its server too, and forgets the old ones.
logins = {}
accounts = {}

PAGE = """\
<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width">
<title>My CARTO account</title>
<style>
  :root { color-scheme: light dark }
  body { font: 1.125rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1.5rem;
         overflow-wrap: anywhere; background: Canvas }
  button { font: inherit; padding: .5rem 1.25rem }
</style>
<h1>My CARTO account</h1>
<p>{{ text }}</p>
<form action="{{ action }}" method="{{ method }}"><button>{{ label }}</button></form>
"""


def page(text, status=200, *, action="/login", method="get", label="Log in to CARTO"):
    return render_template_string(PAGE, text=text, action=action, method=method, label=label), status


@app.get("/")
def home():
    auth = accounts.get(session.get("person"))
    if auth is None:
        return page("You are not logged in.")
    try:
        auth.get_access_token()  # what the app does with it
    except LoginRequired:
        return page("Your login has ended.")
    text = f"You are logged in as {auth.email}. The API is at {auth.get_api_base_url()}"
    return page(text, action="/logout", method="post", label="Log out")


@app.get("/login")
def begin():
    login = CartoAuth.begin_oauth(redirect_uri=CALLBACK)
    # A cookie binds the login to this browser: a link that somebody sends logs nobody in (RFC 6749 section 10.12).
    session["login"] = login.state
    logins[login.state] = login
    return redirect(login.url)


@app.get("/login/done")
def finish():
    login = logins.pop(session.pop("login", None), None)
    if login is None:
        return page("This login was not begun in this browser, or was answered before.", 400)
    try:
        # Not request.url, which behind a proxy is not the address that the browser came to.
        auth = login.finish(f"{CALLBACK}?{request.query_string.decode()}")
    except CredentialsError as error:
        return page(str(error), 400)
    session["person"] = secrets.token_urlsafe(32)
    accounts[session["person"]] = auth
    return redirect("/")


@app.post("/logout")
def leave():
    accounts.pop(session.pop("person", None), None)
    return redirect("/")
