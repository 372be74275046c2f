//! The parameters `query` and `truncate` of a query string or a form.

use axum::http::Uri;
use utoipa::ToSchema;

use crate::error::Refusal;
use crate::model::{Text, TooLong};
use crate::serving::Request;

/// What `/predict` takes as a form.
#[derive(ToSchema)]
#[schema(example = json!({"query": "play some jazz"}))]
#[expect(dead_code, reason = "a description")]
pub(crate) struct FormRequest {
    query: String,
    truncate: Option<bool>,
}

/// The text of a query string or a form, and what to do if it is too long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TextParameters {
    pub(crate) text: String,
    pub(crate) too_long: TooLong,
}

/// Where parameters come from, for error messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct ParameterSource {
    pub(super) name: &'static str,
    /// Parameters that would be accepted.
    pub(super) example: &'static str,
}

impl TextParameters {
    /// Parses percent-encoded parameters. Unknown ones pass, since gateways and browsers add their own.
    pub(super) fn parse(encoded: &[u8], source: ParameterSource) -> Result<Self, Refusal> {
        let ParameterSource { name, example } = source;
        let malformed = |what: &str| Refusal::Malformed(format!("{name} {what}"));
        if percent_encoding::percent_decode(encoded)
            .decode_utf8()
            .is_err()
        {
            return Err(malformed("is not UTF-8 once percent-decoded"));
        }
        let (mut query, mut too_long) = (None, TooLong::Truncate);
        for (name, value) in form_urlencoded::parse(encoded) {
            match &*name {
                "query" if query.is_some() => {
                    let what = "has the parameter \"query\" twice; send a list by POST";
                    return Err(malformed(what));
                }
                "query" => query = Some(value.into_owned()),
                "truncate" => {
                    too_long = match &*value {
                        "true" => TooLong::Truncate,
                        "false" => TooLong::Refuse,
                        _ => return Err(malformed("has a \"truncate\" that is not true or false")),
                    }
                }
                _ => {}
            }
        }
        let missing = || malformed(&format!("has no parameter \"query\"; {example} would do"));
        Ok(Self {
            text: query.ok_or_else(missing)?,
            too_long,
        })
    }

    /// The parameters of an address; `None` if it has no `query`.
    pub(crate) fn of(uri: &Uri) -> Result<Option<Self>, Refusal> {
        let encoded = uri.query().unwrap_or_default().as_bytes();
        let has_query = form_urlencoded::parse(encoded).any(|(name, _)| name == "query");
        if !has_query {
            return Ok(None);
        }
        let source = ParameterSource {
            name: "the query string",
            example: "?query=music",
        };
        Self::parse(encoded, source).map(Some)
    }
}

impl From<TextParameters> for Request {
    fn from(TextParameters { text, too_long }: TextParameters) -> Self {
        Self {
            texts: vec![Text::Single(text)],
            too_long,
        }
    }
}

/// Decodes the query string of a `GET /predict`.
///
/// # Errors
/// [`Refusal::Malformed`] if `query` is missing or occurs twice, `truncate` is neither true nor false, or the
/// text is not UTF-8.
pub fn decode_query(query: &str) -> Result<Request, Refusal> {
    let source = ParameterSource {
        name: "the query string",
        example: "/predict?query=music",
    };
    TextParameters::parse(query.as_bytes(), source).map(Request::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_unknown_ones_pass() {
        let source = ParameterSource {
            name: "it",
            example: "this",
        };
        let parse = |query: &str| TextParameters::parse(query.as_bytes(), source);
        assert_eq!(parse("query=play%20a+b%2Bc").unwrap().text, "play a b+c");
        let expected = TextParameters {
            text: "a".into(),
            too_long: TooLong::Refuse,
        };
        assert_eq!(parse("x=1&query=a&truncate=false"), Ok(expected));
        assert_eq!(parse("query=").unwrap().text, "");
        for wrong in [
            "",
            "q=a",
            "query=a&query=b",
            "query=a&truncate=no",
            "query=%ff",
        ] {
            assert_eq!(parse(wrong).unwrap_err().status(), 400, "{wrong}");
        }
    }
}
