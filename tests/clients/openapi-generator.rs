//! Uses a daemon with the demo app-server through a client of openapi-generator (rust): a session, a turn with `wait`, an
//! approval, an error, and a page of events. Its argument is the address.

use std::time::Duration;

use openapi::apis::configuration::Configuration;
use openapi::apis::{Error, events_api, requests_api, sessions_api, turns_api};
use openapi::models::{
    AnswerRequest, AppServerTurnMessageDeltaEvent, CreateSession, RequestStatus, SubmitTurn, SubmitTurnInput,
};

#[tokio::main]
async fn main() {
    let client = Configuration { base_path: std::env::args().nth(1).unwrap(), ..Configuration::new() };
    let cwd = Some(std::env::current_dir().unwrap().to_str().unwrap().to_owned());
    let body = CreateSession { cwd, ..CreateSession::new() };
    let session = sessions_api::create_session(&client, None, Some(body)).await.unwrap().data.session;
    let id = &session.session_id;

    let turn = |text: &str| {
        let input = Some(Box::new(SubmitTurnInput::String(text.to_owned())));
        SubmitTurn { input, ..SubmitTurn::new(id.clone()) }
    };
    let hello = turns_api::submit_turn(&client, turn("hello"), Some(30), None).await.unwrap();
    let text = hello.data.turn.unwrap().unwrap().text.unwrap();
    assert!(text.starts_with("Hello!"), "{text}");

    let tour = turns_api::submit_turn(&client, turn("tour"), None, None).await.unwrap().data;
    let open = loop {
        let listed = requests_api::list_requests(&client, Some(id)).await.unwrap().data.requests;
        if let Some(open) = listed.into_iter().find(|request| request.status == RequestStatus::Pending) {
            break open;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let answer = AnswerRequest { decision: Some(Some("accept".into())), ..AnswerRequest::new() };
    requests_api::answer_request(&client, &open.request_id, answer).await.unwrap();
    let ended = turns_api::read_turn(&client, id, &tour.turn_id.unwrap(), Some(60)).await.unwrap();
    assert_eq!(ended.data.turn.status, "completed");

    match sessions_api::read_session(&client, "nobody").await {
        Err(Error::ResponseError(response)) => {
            assert_eq!(response.status, 404);
            assert!(response.content.contains("not_found"), "{}", response.content);
        }
        other => panic!("{other:?}"),
    }

    let page = events_api::read_events(&client, None, Some(1000), Some(id), None, None).await.unwrap().data;
    let mut text = String::new();
    // KnownEvent of this generator cannot be read: serde takes `type`, its tag, away from the structs, which require it.
    for event in page.events.iter().filter(|event| event.r#type == "app-server.turn.message.delta") {
        let event = serde_json::to_value(event).unwrap();
        let known: AppServerTurnMessageDeltaEvent = serde_json::from_value(event).unwrap();
        text += &known.detail.delta;
    }
    assert!(text.starts_with("Hello!"), "{text}");
}
