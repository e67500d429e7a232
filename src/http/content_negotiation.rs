//! Content negotiation (RFC 9110 section 12.5): between JSON and server-sent events for the event stream, and between gzip
//! and no encoding for the page. Stateless.

use axum::http::{HeaderMap, header};

/// The quality of a media type in thousandths, and how exactly the range names it.
type Preference = (u16, u8);

/// Whether a client prefers server-sent events to JSON: their media range has a higher quality or, with equal quality,
/// is more exact.
pub(super) fn prefers_event_stream(headers: &HeaderMap) -> bool {
    let values = || {
        let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(','))
    };
    let events = preference(values(), "text", "event-stream");
    events.0 > 0 && events > preference(values(), "application", "json")
}

/// Whether a client accepts gzip, and does not prefer the plain text.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let quality = |coding: &str| {
        let values =
            headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
        let mut codings = values.flat_map(|value| value.split(',')).map(|one| one.split(';').map(str::trim));
        let found = codings
            .find_map(|mut parts| parts.next()?.eq_ignore_ascii_case(coding).then(|| quality_of(parts)));
        found.map(Option::unwrap_or_default)
    };
    let gzip = quality("gzip").or_else(|| quality("*")).unwrap_or_default();
    gzip > 0 && gzip >= quality("identity").unwrap_or_default()
}

/// The quality among the parameters of a range: 1 without one, and `None` if it is invalid.
fn quality_of<'a>(mut parameters: impl Iterator<Item = &'a str>) -> Option<u16> {
    let quality = parameters.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim_end().eq_ignore_ascii_case("q").then_some(value.trim_start())
    });
    quality.map_or(Some(1000), thousandths)
}

/// The preference for a media type, by the range that names it most exactly.
fn preference<'a>(ranges: impl Iterator<Item = &'a str>, kind: &str, subtype: &str) -> Preference {
    let found = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (range_kind, range_subtype) = parts.next()?.split_once('/')?;
        let exactness = match (range_kind, range_subtype) {
            ("*", "*") => 0,
            (one, "*") if one.eq_ignore_ascii_case(kind) => 1,
            (one, other) if one.eq_ignore_ascii_case(kind) && other.eq_ignore_ascii_case(subtype) => 2,
            _ => return None,
        };
        Some((exactness, quality_of(parts)?))
    });
    let most_exact = found.max();
    most_exact.map_or((0, 0), |(exactness, quality)| (quality, exactness))
}

/// Parses a quality such as `0.5`.
fn thousandths(text: &str) -> Option<u16> {
    let quality: f32 = text.parse().ok()?;
    (0.0..=1.0).contains(&quality).then_some((quality * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn event_stream_is_preferred_by_accept_header() {
        for (accept, expected) in [
            ("text/event-stream", true),
            ("TEXT/Event-Stream", true),
            ("text/event-stream;q=0.5", true),
            ("text/event-stream; charset=utf-8", true),
            ("text/event-stream, */*", true),
            ("text/event-stream, */*;q=0.1", true),
            ("application/json;q=0.5, text/event-stream", true),
            ("text/event-stream;q=0", false),
            ("text/event-stream; Q=0.0", false),
            ("text/event-stream;q=0, */*", false),
            ("application/json, text/event-stream", false),
            ("text/event-stream, application/json", false),
            ("text/event-stream;q=0.5, application/json", false),
            ("text/event-stream;q=0.5, */*", false),
            ("*/*", false),
            ("application/json", false),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
            ("text/event-streams", false),
            ("image/png", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(prefers_event_stream(&headers), expected, "{accept}");
        }
        let mut headers = HeaderMap::new();
        assert!(!prefers_event_stream(&headers));
        headers.append(header::ACCEPT, HeaderValue::from_static("application/json;q=0.2"));
        headers.append(header::ACCEPT, HeaderValue::from_static("text/event-stream;q=0.3"));
        assert!(prefers_event_stream(&headers));
    }

    #[test]
    fn gzip_is_used_if_accepted_and_not_less_than_plain_text() {
        for (accept, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("*", true),
            ("*;q=0.1", true),
            ("gzip;q=0, *", false),
            ("gzip;q=0.0", false),
            ("gzip;q=x", false),
            ("gzip;q=0.5, identity", false),
            ("gzip, identity;q=0.5", true),
            ("identity", false),
            ("x-gzip, br", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))]);
            assert_eq!(accepts_gzip(&headers), expected, "{accept}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
