"""How Faust talks to brokers: what `datarun.log.brokers` says to librdkafka, in Faust's words."""

from __future__ import annotations

import ssl

from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT

from datarun.log.brokers import AUTHENTICATED, ENCRYPTED, Security


def credentials_of(security: Security) -> CredentialsT | None:
    """Return Faust's credentials; None where brokers ask for no proof."""
    context = _context(security) if security.protocol in ENCRYPTED else None
    if security.protocol in AUTHENTICATED:
        credentials: CredentialsT = SASLCredentials(
            username=security.username, password=security.password, mechanism=security.mechanism, ssl_context=context
        )
        return credentials
    return None if context is None else SSLCredentials(context)


def _context(security: Security) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=security.ca_file)
    if security.certificate_file:
        context.load_cert_chain(security.certificate_file, security.key_file, security.key_password or None)
    return context
