"""Log in to CARTO in a Streamlit app, which never waits for the person.

It also needs Streamlit: pip install streamlit; streamlit run examples/streamlit_app.py
"""

import streamlit as st

from carto_auth import CartoAuth, CredentialsError
from carto_auth.errors import TenantNotFound

st.title("My CARTO account")

if "auth" in st.session_state:
    # The session belongs to this person alone; nothing is kept on disk.
    st.success(f"You are logged in. The API is at {st.session_state.auth.get_api_base_url()}")
    if st.button("Log out"):
        del st.session_state.auth
        st.rerun()
    st.stop()

if "login" not in st.session_state:
    st.session_state.login = CartoAuth.begin_oauth()
if "problem" in st.session_state:
    st.error(st.session_state.pop("problem"))

st.link_button("1. Log in to CARTO", st.session_state.login.url)
st.write("The last page shows an access code. Copy it, and do not give it to anybody else.")

with st.form("code", clear_on_submit=True):
    code = st.text_input("2. Paste the access code", type="password")
    submitted = st.form_submit_button("3. Continue")

if submitted:
    answer = code or st.session_state.get("answer", "")
    try:
        st.session_state.auth = st.session_state.login.finish(answer)
    except TenantNotFound as error:
        st.session_state.answer = answer  # the login is kept: after that visit, "Continue" needs no other code
        st.error(str(error))
    except CredentialsError as error:
        st.session_state.problem = str(error)
        del st.session_state.login  # as the error says: the next try has a new link
        st.rerun()
    else:
        del st.session_state.login
        st.rerun()
