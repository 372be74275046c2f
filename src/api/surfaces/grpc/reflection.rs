//! gRPC's reflection service: describes the services to clients without a .proto file.

use axum::routing::{MethodRouter, post_service};

use super::framing::MESSAGE_MAX;
use super::inference::DESCRIPTORS;
use crate::api::fallback::{not_found, only_post};
use crate::api::state::ApiState;

fn builder() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// The service in its version `v1`.
pub(super) fn v1() -> MethodRouter<ApiState> {
    // The build makes the descriptors, and a test asks for them.
    match builder().build_v1() {
        Ok(service) => {
            post_service(service.max_decoding_message_size(MESSAGE_MAX)).fallback(only_post)
        }
        Err(_) => MethodRouter::new().fallback(not_found),
    }
}

/// The service in its version `v1alpha`, which older clients ask for.
pub(super) fn v1alpha() -> MethodRouter<ApiState> {
    match builder().build_v1alpha() {
        Ok(service) => {
            post_service(service.max_decoding_message_size(MESSAGE_MAX)).fallback(only_post)
        }
        Err(_) => MethodRouter::new().fallback(not_found),
    }
}
