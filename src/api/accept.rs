//! Which form an answer takes (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};
use mime::Mime;

/// A form of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `text/html`: the label.
    Html,
    /// `text/plain`: the label.
    Plain,
    /// `application/json`: everything.
    Json,
}

impl Form {
    fn essence(self) -> (&'static str, &'static str) {
        match self {
            Self::Html => ("text", "html"),
            Self::Plain => ("text", "plain"),
            Self::Json => ("application", "json"),
        }
    }
}

/// The offered form that the client likes best; the first of equals, and the first of all when
/// the client names none that is offered (an answer it did not ask for serves it better than
/// none).
pub(super) fn choose(headers: &HeaderMap, offered: &[Form; 3]) -> Form {
    let ranges: Vec<Mime> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.trim().parse().ok())
        .collect();
    let mut best = (offered[0], 0.0);
    for form in offered {
        let quality = quality(&ranges, *form);
        if quality > best.1 {
            best = (*form, quality);
        }
    }
    best.0
}

/// The weight that the most specific matching range gives a form; 0 when none matches.
fn quality(ranges: &[Mime], form: Form) -> f32 {
    let (kind, subtype) = form.essence();
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

    const GET: [Form; 3] = [Form::Html, Form::Json, Form::Plain];

    fn chosen(accept: &str) -> Form {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        choose(&headers, &GET)
    }

    #[test]
    fn the_client_gets_what_it_likes_best() {
        assert_eq!(choose(&HeaderMap::new(), &GET), Form::Html);
        assert_eq!(chosen("*/*"), Form::Html);
        assert_eq!(chosen("application/json"), Form::Json);
        assert_eq!(chosen("text/plain"), Form::Plain);
        assert_eq!(chosen("text/*;q=0.5, application/json;q=0.4"), Form::Html);
        assert_eq!(
            chosen("text/*;q=0.5, text/html;q=0, application/json;q=0.4"),
            Form::Plain
        );
        assert_eq!(
            chosen("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            Form::Html
        );
        assert_eq!(chosen("application/json, text/plain, */*"), Form::Html);
        assert_eq!(chosen("image/png"), Form::Html);
        assert_eq!(chosen("not a type;;, application/json"), Form::Json);
    }
}
