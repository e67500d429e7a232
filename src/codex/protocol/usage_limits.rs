//! Finds out when a usage limit of the account ends, from the messages of Codex.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use serde_json::Value;

/// When a usage limit ends: the latest reset of the windows that are used up, else the time in the error text.
///
/// `rate_limits` and `message` are Codex's; a reset before `now` is none.
pub fn reset(rate_limits: Option<&Value>, message: &str, now: &Zoned) -> Option<Timestamp> {
    let windows = ["primary", "secondary"].iter().filter_map(|name| rate_limits?.get(name));
    let used_up = windows.filter(|window| window["usedPercent"].as_f64().is_some_and(|used| used >= 100.0));
    let resets = used_up.filter_map(|window| Timestamp::from_second(window["resetsAt"].as_i64()?).ok());
    resets.filter(|reset| *reset > now.timestamp()).max().or_else(|| reset_in_text(message, now))
}

/// The time in "… try again at 4:29 PM." or "… try again at Nov 30th, 2026 4:29 PM.", which is in the local time zone
/// (codex 0.140.0 to 0.171.0).
///
/// Codex leaves the seconds out, so this is the end of that minute.
fn reset_in_text(message: &str, now: &Zoned) -> Option<Timestamp> {
    let (_, after) = message.split_once("try again at ")?;
    let parts: Vec<&str> = after.trim_end_matches('.').split_whitespace().collect();
    let (time, date) = match *parts.as_slice() {
        [time, half, ..] if time.contains(':') => (clock(time, half)?, None),
        [month, day, year, time, half, ..] => (clock(time, half)?, Some(calendar(month, day, year)?)),
        _ => return None,
    };
    let zone: TimeZone = now.time_zone().clone();
    let at = |date: Date| date.to_datetime(time).to_zoned(zone.clone()).ok()?.checked_add(1.minute()).ok();
    let at = match date {
        Some(date) => at(date)?,
        None => at(now.date()).filter(|at| at > now).or_else(|| at(now.date().tomorrow().ok()?))?,
    };
    Some(at.timestamp())
}

/// What Codex writes about the end of a limit.
#[cfg(test)]
pub fn text_of_reset(at: &Zoned) -> String {
    format!("try again at {}.", at.strftime("%b %dth, %Y %I:%M %p"))
}

fn clock(time: &str, half: &str) -> Option<Time> {
    let (hour, minute) = time.split_once(':')?;
    let hour: i8 = hour.parse().ok().filter(|hour| (1..=12).contains(hour))?;
    let afternoon = match half.trim_end_matches(|next: char| !next.is_ascii_alphabetic()) {
        "AM" => 0,
        "PM" => 12,
        _ => return None,
    };
    Time::new(hour % 12 + afternoon, minute.parse().ok()?, 0, 0).ok()
}

fn calendar(month: &str, day: &str, year: &str) -> Option<Date> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    let day = day.trim_end_matches(|next: char| !next.is_ascii_digit());
    Date::new(year.parse().ok()?, i8::try_from(month).ok()?, day.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reset_is_read_from_the_limits_or_from_the_error() {
        let now: Zoned = "2026-11-28T15:29:30+01:00[+01:00]".parse().unwrap();
        for (text, until) in [
            ("try again at 4:29 PM.", Some("2026-11-28T15:30:00Z")),
            ("visit X to purchase more credits or try again at 12:05 AM.", Some("2026-11-28T23:06:00Z")),
            ("try again at 3:29 PM.", Some("2026-11-28T14:30:00Z")),
            ("try again at 3:10 PM.", Some("2026-11-29T14:11:00Z")),
            ("or try again at Nov 30th, 2026 4:29 PM.", Some("2026-11-30T15:30:00Z")),
            ("or try again at Dec 1st, 2026 9:00 AM", Some("2026-12-01T08:01:00Z")),
            ("try again later.", None),
            ("try again at noon.", None),
            ("try again at 25:00 PM.", None),
            ("try again at Foo 1st, 2026 9:00 AM", None),
            ("", None),
        ] {
            let until = until.map(|until| until.parse::<Timestamp>().unwrap());
            assert_eq!(reset_in_text(text, &now), until, "{text}");
        }
        let soon = Timestamp::now().as_second() + 600;
        let limits = json!({
            "primary": { "usedPercent": 100, "resetsAt": soon }, "secondary": { "usedPercent": 20, "resetsAt": soon + 1 }
        });
        assert_eq!(reset(Some(&limits), "", &Zoned::now()).unwrap().as_second(), soon);
    }
}
