"""Counters of one server, under the names of vLLM with `metier:` for `vllm:` where vLLM has them, so that dashboards carry over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from metier.serving.ticket import Finished
from metier.serving.work import Worker

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LORA = ("max_lora", "running_lora_adapters", "waiting_lora_adapters")
_SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class Metrics:
    """All counters of one server. Labels hold only names that the server itself knows, never text of a request."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.registry = CollectorRegistry()
        self._workers = tuple(workers)
        self._running = self._gauge("num_requests_running", "Requests that are being answered.")
        self._waiting = self._gauge("num_requests_waiting", "Requests that wait for a row.")
        self._lora = self._gauge(
            "lora_requests_info", "Releases of running and waiting requests.", "max_lora", "running_lora_adapters", "waiting_lora_adapters"
        )
        self._first = self._seconds("time_to_first_token_seconds", "From the request to its first token.", _SECONDS)
        self._between = self._seconds("inter_token_latency_seconds", "Mean time between the tokens of one answer.", _SHORT)
        self._whole = self._seconds("e2e_request_latency_seconds", "From the request to the end of its answer.", _SECONDS)
        self._queued = self._seconds("request_queue_time_seconds", "Waiting for a row.", _SECONDS)
        self._prompt = self._counter("prompt_tokens", "Tokens of questions.", "model_name")
        self._generated = self._counter("generation_tokens", "Tokens of answers.", "model_name")
        self._success = self._counter("request_success", "Answers by how they ended.", "finished_reason")
        self.responses = self._counter("http_responses", "Responses by route and status.", "route", "status")
        self.denied = self._counter("auth_denied", "Requests without a valid key or scope.")
        self.guard = self._seconds("guard_seconds", "Time that the guard took for one request.", _SHORT, "side")
        self.fired = self._counter("guard_rules", "Guard rules that fired.", "rule")
        self.redacted = self._counter("identifiers_redacted", "Identifiers that were redacted.", "side", "kind")
        self.recorded = self._seconds("record_seconds", "Time until an event was durable.", _SHORT)
        self.unrecorded = self._counter("record_failures", "Events that could not be kept; their answers were not given.")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"metier:{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"metier:{name}", text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"metier:{name}", text, labels, registry=self.registry, buckets=buckets)

    def answered(self, finished: Finished, reason: str) -> None:
        """Count an answer that the engine has finished; `reason` is how the client was told that it ended."""
        self._success.labels(reason).inc()
        self._prompt.labels(finished.executed.name).inc(finished.prompt_tokens)
        self._generated.labels(finished.executed.name).inc(finished.completion_tokens)
        self._queued.observe(finished.queued)
        self._whole.observe(finished.seconds)
        if finished.first is not None:
            self._first.observe(finished.first)
            if finished.completion_tokens > 1:
                self._between.observe((finished.seconds - finished.first) / (finished.completion_tokens - 1))

    def page(self) -> bytes:
        """Return everything in Prometheus' text form."""
        loads = [worker.load for worker in self._workers]
        self._running.set(sum(load.running for load in loads))
        self._waiting.set(sum(load.waiting for load in loads))
        self._lora.clear()
        running, waiting = [name for load in loads for name in load.running_names], [name for load in loads for name in load.waiting_names]
        labels: Any = (str(sum(len(worker.loaded) for worker in self._workers)), ",".join(running), ",".join(waiting))
        self._lora.labels(*labels).set_to_current_time()
        return generate_latest(self.registry)
