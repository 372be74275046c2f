//! Flags that take a list. A separator at the end leaves a blank item, which is ignored.

use std::str::FromStr;

/// An item of a list, or the blank after its last comma or newline.
#[derive(Debug, Clone)]
pub struct ListItem<T>(Option<T>);

impl<T> ListItem<T> {
    /// The item, unless it is blank.
    pub(super) fn value(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T: FromStr> FromStr for ListItem<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let is_blank = text.trim().is_empty();
        Ok(Self(if is_blank { None } else { Some(text.parse()?) }))
    }
}

/// The items that are not blank.
pub(super) fn items<T>(list: Vec<ListItem<T>>) -> Vec<T> {
    list.into_iter().filter_map(|item| item.0).collect()
}

/// Parses `KEY=VALUE`, a property of librdkafka.
pub(super) fn parse_property(text: &str) -> Result<ListItem<(String, String)>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(ListItem(None));
    }
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok(ListItem(Some((key.to_owned(), value.to_owned()))))
        }
        // The text is not repeated: it may be a secret.
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_a_key_and_a_value() {
        let properties = ["a=b", "", "c=d\r", "a.b=c=d"].map(|line| parse_property(line).unwrap());
        let expected =
            [("a", "b"), ("c", "d"), ("a.b", "c=d")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(items(properties.to_vec()), expected);
        assert!(!parse_property("secret").unwrap_err().contains("secret"));
    }
}
