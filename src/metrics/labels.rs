//! The labels of `intentd_requests_total`.

/// The surface of a request; the `surface` label of `intentd_requests_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// Our own `/predict`.
    Predict,
    /// The routes and bodies of text-embeddings-inference.
    Tei,
    /// CloudEvents over HTTP.
    CloudEvents,
    /// The Open Inference Protocol over REST.
    Rest,
    /// The Open Inference Protocol over gRPC.
    Grpc,
    /// Kafka records.
    Kafka,
}

impl Surface {
    pub(super) const ALL: [Self; 6] = [
        Self::Predict,
        Self::Tei,
        Self::CloudEvents,
        Self::Rest,
        Self::Grpc,
        Self::Kafka,
    ];

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Tei => "tei",
            Self::CloudEvents => "cloudevents",
            Self::Rest => "rest",
            Self::Grpc => "grpc",
            Self::Kafka => "kafka",
        }
    }
}

/// The outcome of a request; the `outcome` label of `intentd_requests_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a prediction.
    Answered,
    /// With an error that says why.
    Refused,
    /// The client left before the answer.
    Abandoned,
}

impl Outcome {
    pub(super) const ALL: [Self; 3] = [Self::Answered, Self::Refused, Self::Abandoned];

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
        }
    }
}
