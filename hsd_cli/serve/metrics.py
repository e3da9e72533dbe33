"""What Prometheus reads: requests, texts, tokens, and how long people waited."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hsd_cli.decoding.loop import Commit
from hsd_cli.serve.worker import Job, Worker

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


class Metrics:
    """Counted in the event loop's thread."""

    def __init__(self, worker: Worker) -> None:
        self._registry = there = CollectorRegistry()
        self.requests = Counter("hsd_requests", "Answered requests.", ["path", "status"], registry=there)
        self.texts = Counter("hsd_texts", "Texts by what ended them.", ["reason"], registry=there)
        self.prompt_tokens = Counter("hsd_prompt_tokens", "Tokens of prompts.", registry=there)
        self.tokens = Counter("hsd_tokens", "Tokens that were written.", registry=there)
        self.drafted = Counter("hsd_drafted_tokens", "Tokens that were drafted.", registry=there)
        self.accepted = Counter("hsd_accepted_tokens", "Drafted tokens that the target accepted.", registry=there)
        self.passes = Counter("hsd_target_passes", "Iterations; texts of a batch share their passes.", registry=there)
        self.first = Histogram(
            "hsd_first_token_seconds", "From the request to its first token.", buckets=SECONDS, registry=there
        )
        self.whole = Histogram(
            "hsd_text_seconds", "From the request to its last token.", buckets=SECONDS, registry=there
        )
        running = Gauge("hsd_texts_running", "Texts that are being written.", registry=there)
        running.set_function(lambda: worker.running)
        waiting = Gauge("hsd_texts_waiting", "Texts that wait for a seat.", registry=there)
        waiting.set_function(lambda: worker.waiting)

    def exposition(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class TextWatch:
    """Counts one text, from now on."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._begun = perf_counter()
        self._first = True

    def __call__(self, job: Job, event: Commit | Exception) -> None:
        metrics = self._metrics
        if isinstance(event, Exception):
            metrics.texts.labels("error").inc()
            return
        if self._first and job.generation is not None:
            self._first = False
            metrics.prompt_tokens.inc(job.generation.statistics.prompt_tokens)
            metrics.first.observe(perf_counter() - self._begun)
        metrics.tokens.inc(len(event.pieces))
        metrics.drafted.inc(event.drafted)
        metrics.accepted.inc(event.accepted)
        metrics.passes.inc()
        if event.finish_reason is not None:
            metrics.whole.observe(perf_counter() - self._begun)
            metrics.texts.labels(event.finish_reason).inc()
