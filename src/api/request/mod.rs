//! Requests for predictions as `/predict` takes them: query string, form, our own JSON, and the JSON of
//! Hugging Face's text-embeddings-inference (TEI).
//!
//! Takes bytes; gives the texts and the shape of the answer. Error messages never repeat the text.

mod body;
mod fields;
mod own;
mod parameters;
mod schema;
mod tei;
mod texts;

pub use self::body::decode_body;
pub(super) use self::body::{AnswerShape, DecodedBody, decode};
pub use self::parameters::decode_query;
pub(super) use self::parameters::{FormRequest, TextParameters};
pub(super) use self::schema::{PredictRequest, Texts};
pub(super) use self::tei::{TEI, TeiShape, TokenizeTexts, decode_tokenize, text_or_pairs};
pub(super) use self::texts::{Arity, TextList, with_second};
