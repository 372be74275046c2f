//! The header `traceparent`: version, trace, parent span and flags (W3C Trace Context, level 1, section 3.2).

use std::fmt;
use std::str::FromStr;

/// Identifies a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// Identifies a span in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

/// A caller's `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceParent {
    trace_id: TraceId,
    parent_id: SpanId,
    sampled: bool,
}

/// The place of our span in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// Our span.
    pub span_id: SpanId,
    /// The caller's span.
    pub parent_id: Option<SpanId>,
    /// Whether the span is exported.
    pub sampled: bool,
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The header is not a valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidTraceParent;

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut parts = text.splitn(5, '-');
        let mut part = || parts.next().ok_or(InvalidTraceParent);
        let (version, trace, parent, flags) = (part()?, part()?, part()?, part()?);
        let [version] = hex(version)?;
        // Later versions may have more fields, version 0 may not.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return Err(InvalidTraceParent);
        }
        let (trace, parent, [flags]) = (hex(trace)?, hex(parent)?, hex(flags)?);
        if trace == [0; 16] || parent == [0; 8] {
            return Err(InvalidTraceParent);
        }
        Ok(Self {
            trace_id: TraceId(trace),
            parent_id: SpanId(parent),
            sampled: flags & 1 == 1,
        })
    }
}

/// Exactly `N` bytes in lower-case hexadecimal.
fn hex<const N: usize>(text: &str) -> Result<[u8; N], InvalidTraceParent> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(InvalidTraceParent);
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidTraceParent),
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Ok(bytes)
}

impl TraceContext {
    /// A child of the caller's span.
    pub(super) fn child(parent: TraceParent) -> Self {
        Self {
            trace_id: parent.trace_id,
            span_id: SpanId(rand::random()),
            parent_id: Some(parent.parent_id),
            sampled: parent.sampled,
        }
    }

    /// The root of a new trace, sampled with probability `sample`.
    pub(super) fn root(sample: f64) -> Self {
        Self {
            trace_id: TraceId(rand::random()),
            span_id: SpanId(rand::random()),
            parent_id: None,
            sampled: rand::random::<f64>() < sample,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_span_belongs_to_the_trace_of_its_caller() {
        let context = TraceContext::child(VALID.parse().unwrap());
        assert_eq!(
            context.trace_id.to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(context.parent_id.unwrap().to_string(), "b7ad6b7169203331");
        assert!(context.sampled);
        assert_ne!(context.span_id, context.parent_id.unwrap());
        let unsampled: TraceParent = VALID.replace("-01", "-00").parse().unwrap();
        assert!(!TraceContext::child(unsampled).sampled);
        let later: Result<TraceParent, _> = format!("cc{}-what-comes", &VALID[2..]).parse();
        assert!(later.is_ok());
    }

    #[test]
    fn an_invalid_traceparent_starts_a_new_trace() {
        let zeros = |n: usize| "0".repeat(n);
        for wrong in [
            "".to_owned(),
            VALID.to_uppercase(),
            format!("{VALID}-more"),
            format!("ff{}", &VALID[2..]),
            VALID[..54].to_owned(),
            VALID.replace("0af7651916cd43dd8448eb211c80319c", &zeros(32)),
            VALID.replace("b7ad6b7169203331", &zeros(16)),
            VALID.replace('-', "_"),
            VALID.replace("b7ad", "ü7a"),
        ] {
            assert!(wrong.parse::<TraceParent>().is_err(), "{wrong}");
        }
        assert!(TraceContext::root(1.0).sampled && !TraceContext::root(0.0).sampled);
    }
}
