"""Uses a daemon with the demo app-server through a client of openapi-python-client: a session, a turn with `wait`, an
approval, an error, and a page of events. Its argument is the address."""

import os
import sys
import time

from codexd_client import Client
from codexd_client.api.events import read_events
from codexd_client.api.requests import answer_request, list_requests
from codexd_client.api.sessions import create_session, read_session
from codexd_client.api.turns import read_turn, submit_turn
from codexd_client.models import (
    AnswerRequest,
    AppServerTurnMessageDeltaEvent,
    CreateSession,
    CreateSessionPurpose,
    Failure,
    InputItem,
    InputItemType,
    RequestStatus,
    SessionStatus,
    SubmitTurn,
)

client = Client(sys.argv[1])


def data(envelope):
    assert not isinstance(envelope, Failure), envelope
    assert envelope is not None
    return envelope.data


body = CreateSession(cwd=os.getcwd(), purpose=CreateSessionPurpose.WORKER)
session = data(create_session.sync(client=client, body=body)).session
assert session.status is SessionStatus.ACTIVE

hello = SubmitTurn(session_id=session.session_id, input_="hello")
answered = data(submit_turn.sync(client=client, body=hello, wait=30))
assert answered.turn.status == "completed", answered
assert answered.turn.text.startswith("Hello!"), answered

items = [InputItem(type_=InputItemType.TEXT, text="tour")]
tour = data(submit_turn.sync(client=client, body=SubmitTurn(session_id=session.session_id, input_=items)))


def first_pending():
    while True:
        requests = data(list_requests.sync(client=client, session_id=session.session_id)).requests
        for request in requests:
            if request.status is RequestStatus.PENDING:
                return request
        time.sleep(0.05)


answer = AnswerRequest(decision="accept")
data(answer_request.sync(first_pending().request_id, client=client, body=answer))
turn = data(read_turn.sync(session.session_id, tour.turn_id, client=client, wait=60)).turn
assert turn.status == "completed", turn

missing = read_session.sync("nobody", client=client)
assert isinstance(missing, Failure) and missing.error == "not_found", missing

page = data(read_events.sync(client=client, session_id=session.session_id, limit=1000))
deltas = [event for event in page.events if event.type_ == "app-server.turn.message.delta"]
known = [AppServerTurnMessageDeltaEvent.from_dict(event.to_dict()) for event in deltas]
text = "".join(event.detail.delta for event in known)
assert text.startswith("Hello!"), text
