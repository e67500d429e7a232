//! Images in inputs, with the real app-server.

use std::fs;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::Stage;
use super::sessions::submit_with;
use crate::cli::CliUser;
use crate::support::http::post;
use crate::support::wait::wait_until;

/// A PNG of noise that is not compressed, as a data URL.
fn image() -> String {
    const WIDTH: u32 = 160;
    const HEIGHT: u32 = 100;
    let mut noise = 1u32;
    let mut pixels = Vec::new();
    for _ in 0..HEIGHT {
        pixels.extend([0]);
        for _ in 0..WIDTH * 3 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            pixels.push((noise >> 24) as u8);
        }
    }
    // One stored block of deflate, and its checksum.
    let length = u16::try_from(pixels.len()).unwrap();
    let mut data = vec![0x78, 0x01, 0x01];
    data.extend(length.to_le_bytes());
    data.extend((!length).to_le_bytes());
    data.extend(&pixels);
    let (mut a, mut b) = (1u32, 0u32);
    for pixel in &pixels {
        a = (a + u32::from(*pixel)) % 65_521;
        b = (b + a) % 65_521;
    }
    data.extend(((b << 16) | a).to_be_bytes());
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = [WIDTH.to_be_bytes(), HEIGHT.to_be_bytes()].concat();
    header.extend([8, 2, 0, 0, 0]);
    for (kind, content) in [(b"IHDR", &header), (b"IDAT", &data), (b"IEND", &Vec::new())] {
        let chunk = [&kind[..], content].concat();
        png.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
        png.extend(&chunk);
        let mut crc = !0u32;
        for byte in chunk {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
            }
        }
        png.extend((!crc).to_be_bytes());
    }
    format!("data:image/png;base64,{}", BASE64.encode(&png))
}

/// How many requests to the model have the image.
fn requests_with(stage: &Stage, url: &str) -> usize {
    let requests = stage.model.requests();
    requests.iter().filter(|request| request.to_string().contains(url)).count()
}

#[tokio::test]
async fn model_gets_the_image_of_a_turn_and_of_a_queued_turn_after_a_restart() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let url = image();
    let input = |text: &str| json!([{ "type": "text", "text": text, "text_elements": [] }, { "type": "image", "url": url }]);
    let body = json!({ "sessionId": session["sessionId"], "input": input("mock:deltas=1") });
    post(&stage.daemon, "/v1/codexd/turn", &body).await.data(202);
    wait_until("the image", || (requests_with(&stage, &url) == 1).then_some(())).await;

    let other = stage.session(&json!({})).await;
    stage.start_turn(&other, "mock:hang").await;
    let fields = json!({ "input": input("mock:deltas=1"), "whenBusy": "queue" });
    let queued = submit_with(&stage, &other, "", fields).await;
    assert_eq!(queued.data(202)["turnId"], Value::Null);
    stage.daemon.kill().await;
    let stage = stage.restart().await;
    wait_until("the image of the queued turn", || (requests_with(&stage, &url) >= 2).then_some(())).await;
    let log = fs::read_to_string(stage.daemon.logs_dir().join("events.jsonl")).unwrap();
    assert!(log.contains("codexd-attachment:"));
    assert!(!log.contains(url.get(..100).unwrap()), "the log has the image");
    assert_eq!(fs::read_dir(stage.daemon.logs_dir().join("attachments")).unwrap().count(), 1);
}

#[tokio::test]
async fn ask_sends_images() {
    let stage = Stage::start().await;
    let user = CliUser::of(&stage.daemon);
    let url = image();
    let png = BASE64.decode(url.rsplit(',').next().unwrap().as_bytes()).unwrap();
    // The type is that of the content.
    fs::write(user.directory().join("screen.jpg"), png).unwrap();
    fs::write(user.directory().join("notes.png"), "a text").unwrap();
    let answer =
        user.run(&["ask", "--image", "screen.jpg", "--image", "screen.jpg", "mock:text=[I see.]"]).await;
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(0), "I see.\n"), "{answer:?}");
    let request = stage.model.requests().last().unwrap().to_string();
    assert_eq!(request.matches(&url).count(), 2);
    let log = fs::read_to_string(stage.daemon.logs_dir().join("events.jsonl")).unwrap();
    assert!(log.contains("codexd-attachment:") && !log.contains(url.get(..100).unwrap()));
    for (file, reason) in
        [("notes.png", "is not an image"), ("none.png", "Failed to read the image none.png")]
    {
        let refused = user.run(&["ask", "--image", file, "mock:text=[x]"]).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(reason), "{refused:?}");
    }
}
