//! The format of an answer, as `Accept` asks for it (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};
use mime::Mime;

/// A format of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerFormat {
    /// `text/html`: the label.
    Html,
    /// `text/plain`: the label.
    Plain,
    /// `application/json`: everything.
    Json,
}

impl AnswerFormat {
    fn essence(self) -> (&'static str, &'static str) {
        match self {
            Self::Html => ("text", "html"),
            Self::Plain => ("text", "plain"),
            Self::Json => ("application", "json"),
        }
    }
}

/// The offered format that the client prefers, and the first of equals. A client that accepts none of them gets
/// the first: an answer in another format serves it better than none.
pub(super) fn choose(headers: &HeaderMap, offered: &[AnswerFormat; 3]) -> AnswerFormat {
    let ranges: Vec<Mime> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.trim().parse().ok())
        .collect();
    let mut best = (offered[0], 0.0);
    for format in offered {
        let quality = quality(&ranges, *format);
        if quality > best.1 {
            best = (*format, quality);
        }
    }
    best.0
}

/// The weight that the most specific matching range gives a format; 0 if none matches.
fn quality(ranges: &[Mime], format: AnswerFormat) -> f32 {
    let (kind, subtype) = format.essence();
    let specificity = |range: &Mime| match (range.type_().as_str(), range.subtype().as_str()) {
        (k, s) if k == kind && s == subtype => Some(2),
        (k, "*") if k == kind => Some(1),
        ("*", "*") => Some(0),
        _ => None,
    };
    let weight = |range: &Mime| {
        range
            .get_param("q")
            .map_or(1.0, |q| q.as_str().parse().unwrap_or(0.0))
    };
    let matching = ranges
        .iter()
        .filter_map(|range| Some((specificity(range)?, weight(range))));
    matching
        .max_by_key(|(specificity, _)| *specificity)
        .map_or(0.0, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [AnswerFormat; 3] = [AnswerFormat::Html, AnswerFormat::Json, AnswerFormat::Plain];

    fn chosen(accept: &str) -> AnswerFormat {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        choose(&headers, &GET)
    }

    #[test]
    fn the_client_gets_the_format_it_prefers() {
        assert_eq!(choose(&HeaderMap::new(), &GET), AnswerFormat::Html);
        assert_eq!(chosen("*/*"), AnswerFormat::Html);
        assert_eq!(chosen("application/json"), AnswerFormat::Json);
        assert_eq!(chosen("text/plain"), AnswerFormat::Plain);
        assert_eq!(
            chosen("text/*;q=0.5, application/json;q=0.4"),
            AnswerFormat::Html
        );
        assert_eq!(
            chosen("text/*;q=0.5, text/html;q=0, application/json;q=0.4"),
            AnswerFormat::Plain
        );
        assert_eq!(
            chosen("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            AnswerFormat::Html
        );
        assert_eq!(
            chosen("application/json, text/plain, */*"),
            AnswerFormat::Html
        );
        assert_eq!(chosen("image/png"), AnswerFormat::Html);
        assert_eq!(chosen("not a type;;, application/json"), AnswerFormat::Json);
    }
}
