//! Certificate and key from PEM files.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;
use crate::error::{Result, ServerError};

/// What accepts TLS connections with this certificate.
pub(crate) fn read_tls(files: &TlsFiles) -> Result<TlsAcceptor> {
    acceptor(files).map_err(|source| {
        let TlsFiles { certificate, key } = files.clone();
        ServerError::Tls { certificate, key, source }
    })
}

fn acceptor(files: &TlsFiles) -> io::Result<TlsAcceptor> {
    let invalid =
        |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let certificate = std::fs::read(&files.certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(&format_args!("the certificate cannot be read: {error}")))?;
    if chain.is_empty() {
        return Err(invalid(&"the certificate's file has no PEM certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(&std::fs::read(&files.key)?)
        .map_err(|error| invalid(&format_args!("the key cannot be read: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|error| invalid(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
