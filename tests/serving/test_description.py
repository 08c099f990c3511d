from __future__ import annotations

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from serving.conftest import Running


def test_no_request_that_the_description_allows_or_forbids_is_a_server_error(server: Running) -> None:
    headers = {"authorization": f"Bearer {server.key}"}
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=headers)
    seen: set[tuple[str, str, int]] = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            response = case.call(headers=headers, timeout=30)
            case.validate_response(response, checks=[not_a_server_error])
            seen.add((case.method, case.path, response.status_code))
            assert response.status_code < 500

        check()
    assert {path for _, path, _ in seen} >= {"/v1/models", "/v1/models/{name}", "/v1/chat/completions", "/health", "/ready", "/metrics"}
    assert ("POST", "/v1/chat/completions", 404) in seen or ("POST", "/v1/chat/completions", 400) in seen


def test_the_description_names_the_request_and_its_key(server: Running) -> None:
    description = httpx.get(f"{server.url}/openapi.json", headers={"authorization": f"Bearer {server.key}"}).json()
    for route, kind in {"/v1/chat/completions": "ChatRequest", "/v1/classify": "LabelRequest", "/v1/spans": "LabelRequest"}.items():
        body = description["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": f"#/components/schemas/{kind}"}
        assert description["components"]["schemas"][kind]["additionalProperties"] is False
    assert "HTTPBearer" in description["components"]["securitySchemes"]
