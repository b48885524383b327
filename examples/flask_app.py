"""Log in to CARTO in a Flask app, to which people come back by themselves.

Register the app as a "SPA OAuth client" on the Developers page of the CARTO Workspace, with the callback below, which
is compared exactly. Then: CARTO_AUTH_CLIENT_ID=... flask --app examples/flask_app.py run
"""

import os
import secrets

from flask import Flask, redirect, request, session
from markupsafe import escape

from carto_auth import CartoAuth, CredentialsError

CALLBACK = os.environ.get("CALLBACK", "http://localhost:5000/login/done")

app = Flask(__name__)
app.secret_key = secrets.token_bytes(32)

# In the memory of one process. A larger app keeps them on its server too, and forgets the old ones.
logins = {}
accounts = {}


@app.get("/")
def home():
    auth = accounts.get(session.get("person"))
    if auth is None:
        return '<a href="/login">Log in to CARTO</a>'
    return f"You are logged in. The API is at {auth.get_api_base_url()}"


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
        return 'This login was not begun in this browser. <a href="/login">Log in to CARTO</a>', 400
    try:
        auth = login.finish(request.url)
    except CredentialsError as error:
        return f'{escape(error)} <a href="/login">Log in again</a>', 400
    session["person"] = secrets.token_urlsafe(32)
    accounts[session["person"]] = auth
    return redirect("/")
