"""Uses a daemon with the demo app-server through a client of openapi-generator (python): a session, a turn with `wait`,
an approval, an error, and a page of events. Its argument is the address."""

import os
import sys
import time

import openapi_client as codexd

client = codexd.ApiClient(codexd.Configuration(host=sys.argv[1]))
sessions, turns, requests = codexd.SessionsApi(client), codexd.TurnsApi(client), codexd.RequestsApi(client)

session = sessions.create_session(create_session=codexd.CreateSession(cwd=os.getcwd())).data.session


def turn_of(text):
    return codexd.SubmitTurn(session_id=session.session_id, input=codexd.SubmitTurnInput(text))


hello = turns.submit_turn(turn_of("hello"), wait=30).data.turn
assert hello.text.startswith("Hello!"), hello

tour = turns.submit_turn(turn_of("tour")).data
pending = []
while not pending:
    listed = requests.list_requests(session_id=session.session_id).data.requests
    pending = [request for request in listed if request.status == codexd.RequestStatus.PENDING]
    time.sleep(0.05)
requests.answer_request(pending[0].request_id, codexd.AnswerRequest(decision="accept"))
assert turns.read_turn(session.session_id, tour.turn_id, wait=60).data.turn.status == "completed"

try:
    sessions.read_session("nobody")
    raise AssertionError("an unknown session was read")
except codexd.exceptions.NotFoundException as error:
    assert error.data.error == "not_found", error

page = codexd.EventsApi(client).read_events(session_id=session.session_id, limit=1000).data
known = [codexd.KnownEvent.from_json(event.to_json()).actual_instance for event in page.events]
deltas = [event for event in known if isinstance(event, codexd.AppServerTurnMessageDeltaEvent)]
text = "".join(event.detail.delta for event in deltas)
assert text.startswith("Hello!"), text
