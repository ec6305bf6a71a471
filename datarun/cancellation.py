"""Cancelling a fold by way of the gateway, and what came of it in words."""

from __future__ import annotations

import requests

from datarun import post_api
from datarun.errors import DatarunError
from datarun.gateway_client import GatewayUnavailable
from datarun.stack.connection import Connection


def cancel_fold(connection: Connection, fold_id: int, *, reason: str = "") -> str:
    """Cancel a fold and return what happened; raises GatewayUnavailable, or DatarunError with what was refused."""
    body = {"reason": reason} if reason else {}
    path = f"/v1/folds/{fold_id}/cancel"
    try:
        answer = post_api.url_post(connection.gateway_url, path, connection.user, connection.password, body)
        told = answer.json()
    except requests.RequestException as error:
        raise GatewayUnavailable(f"the gateway at {connection.gateway_url} does not answer: {error}") from error
    match answer.status_code:
        case 200:
            return f"fold {fold_id}, attempt {told['attempt']}: cancelled by {told['cancelled_by']}"
        case 202:
            return f"fold {fold_id}, attempt {told['attempt']}: to be cancelled once the log takes it"
        case 404:
            raise DatarunError(f"there is no fold {fold_id}")
        case 409:
            raise DatarunError(f"fold {fold_id} has ended: {told['state']}")
        case status:
            raise DatarunError(f"the gateway answers {status}: {told}")
