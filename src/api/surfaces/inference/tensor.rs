//! Tensors and their binary form: little-endian and row-major, with a four-byte length before each element of BYTES
//! (Triton, "Binary tensor data extension").

use serde_json::Value;

use crate::error::Refusal;

/// An output tensor.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) name: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: TensorData,
    /// Whether it is sent as binary data.
    pub(crate) is_binary: bool,
}

/// Elements in row-major order.
#[derive(Debug)]
pub(crate) enum TensorData {
    Bytes(Vec<String>),
    Fp32(Vec<f32>),
}

impl TensorData {
    pub(crate) fn datatype(&self) -> &'static str {
        match self {
            Self::Bytes(_) => "BYTES",
            Self::Fp32(_) => "FP32",
        }
    }

    /// Encodes the binary form.
    pub(crate) fn raw(&self) -> Vec<u8> {
        match self {
            Self::Bytes(elements) => {
                let mut raw = Vec::new();
                for element in elements {
                    // Labels and scores are far shorter than 4 GB.
                    let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
                    raw.extend(length.to_le_bytes());
                    raw.extend(element.as_bytes());
                }
                raw
            }
            Self::Fp32(elements) => elements.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

/// Decodes an element of BYTES as a text.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String, Refusal> {
    String::from_utf8(bytes)
        .map_err(|_| Refusal::Malformed("an element of an input is not UTF-8".to_owned()))
}

/// Decodes the elements of a BYTES tensor in binary form.
pub(crate) fn elements(mut raw: &[u8]) -> Result<Vec<String>, Refusal> {
    let broken = || {
        let what = "the binary data of an input is not elements of BYTES, each behind its length in \
                    four bytes";
        Refusal::Malformed(what.to_owned())
    };
    let mut elements = Vec::new();
    while !raw.is_empty() {
        let (length, rest) = raw.split_first_chunk().ok_or_else(broken)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (element, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
        elements.push(text(element.to_vec())?);
        raw = rest;
    }
    Ok(elements)
}

/// Appends the strings of a JSON array to `elements`, at any depth.
pub(crate) fn flatten(data: Value, elements: &mut Vec<String>) -> Result<(), Refusal> {
    match data {
        Value::String(element) => elements.push(element),
        Value::Array(items) => {
            for item in items {
                flatten(item, elements)?;
            }
        }
        _ => {
            let what = "the \"data\" of an input is not an array of strings";
            return Err(Refusal::Invalid(what.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_survive_a_round_trip() {
        let texts = ["".to_owned(), "play".to_owned(), "ünï😀".to_owned()];
        let raw = TensorData::Bytes(texts.to_vec()).raw();
        assert_eq!(elements(&raw).unwrap(), texts);
        assert_eq!(elements(&[]).unwrap(), Vec::<String>::new());
        assert_eq!(TensorData::Fp32(vec![1.0]).raw(), [0, 0, 0x80, 0x3f]);
        for wrong in [
            &[1, 0, 0][..],
            &[2, 0, 0, 0, b'a'],
            &[255; 6],
            &[1, 0, 0, 0, 255],
        ] {
            assert_eq!(elements(wrong).unwrap_err().status(), 400);
        }
    }

    #[test]
    fn nested_strings_are_in_row_major_order() {
        let mut found = Vec::new();
        flatten(serde_json::json!([["a", "b"], ["c"]]), &mut found).unwrap();
        assert_eq!(found, ["a", "b", "c"]);
        let wrong = flatten(serde_json::json!(["a", 7]), &mut found);
        assert_eq!(wrong.unwrap_err().status(), 422);
    }
}
