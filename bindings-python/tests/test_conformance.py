"""Runs the scenarios of `tests/conformance`, which every language's package runs. Its README describes the operations."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import realm
from conftest import ROOT

FOLDER = ROOT / "tests" / "conformance"
AREAS = sorted(path.stem for path in FOLDER.glob("*.json"))
assert AREAS


class Runner:
    """The objects and results of a scenario; `realm` and `model` outlive it."""

    def __init__(self) -> None:
        runtime = realm.Realm(threads=2, device="cpu")
        model = runtime.load_model("smollm2-135m", kv_tokens=4096)
        self.objects: dict[str, Any] = {"realm": runtime, "model": model}
        self.values: dict[str, Any] = {}

    def begin(self) -> None:
        """Drops the objects and results of the last scenario."""
        self.objects = {name: self.objects[name] for name in ("realm", "model")}
        self.values = {}

    def operate(self, a: dict[str, Any]) -> Any:
        """Performs an operation: converts its arguments, makes the call, and converts the result."""
        a = {key: value for key, value in a.items() if key not in ("expect", "error", "eventually")}
        operation = getattr(self, "op_" + a.pop("op"))
        self._name = a.pop("as", "unnamed")
        result = operation(a, self.objects[a.pop("model", "model")])
        assert not a, f"there are no arguments {sorted(a)}"
        return result

    def add(self, thing: Any) -> None:
        self.objects[self._name] = thing

    def named(self, a: dict[str, Any], key: str) -> Any:
        return self.objects[a.pop(key)]

    def request(self, a: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        asked = dict(a.pop("request"))
        (kind,) = {"prompt", "messages", "tokens"} & set(asked)
        prompt = asked.pop(kind)
        return prompt, self.options(asked)

    def options(self, asked: dict[str, Any]) -> dict[str, Any]:
        options = dict(asked)
        if "logits_processors" in options:
            options["logits_processors"] = [processor(each) for each in options["logits_processors"]]
        if "adapter" in options:
            options["adapter"] = self.objects[options["adapter"]]
        if "logit_bias" in options:
            options["logit_bias"] = {int(token): bias for token, bias in options["logit_bias"].items()}
        if "lark" in options:
            options["grammar"] = options.pop("lark")
        return options

    # The runtime and models.

    def op_realm(self, a: dict[str, Any], model: realm.Model) -> None:
        key = a.pop("snapshot_key", None)
        self.add(
            realm.Realm(
                threads=a.pop("threads", None),
                device=a.pop("device", None),
                snapshot_key=key and key.encode(),
            )
        )

    def op_pull(self, a: dict[str, Any], model: realm.Model) -> str:
        return str(self.objects["realm"].hub.pull(a.pop("reference")))

    def op_models(self, a: dict[str, Any], model: realm.Model) -> Any:
        return [{"reference": each.name, "state": each.state} for each in self.objects["realm"].hub.list()]

    def op_inspect(self, a: dict[str, Any], model: realm.Model) -> Any:
        info = realm.inspect(FOLDER / a.pop("path"))
        types = [{"name": name, "count": count, "bytes": size} for name, count, size in info.tensor_types]
        return {**attributes(info), "tensor_types": types}

    def op_load_model(self, a: dict[str, Any], model: realm.Model) -> Any:
        reference = a.pop("reference")
        events: list[realm.ProgressEvent] = []
        file = FOLDER / reference
        runtime: realm.Realm = self.objects[a.pop("realm", "realm")]
        options = a.pop("options", {})
        loaded = runtime.load_model(file if file.exists() else reference, progress=events.append, **options)
        self.add(loaded)
        return {"done": events[-1].done, "total": events[-1].total}

    def op_info(self, a: dict[str, Any], model: realm.Model) -> Any:
        return {"reference": model.reference, **attributes(model.info)}

    # Texts and tokens.

    def op_tokenizer(self, a: dict[str, Any], model: realm.Model) -> Any:
        tokenizer = self.objects["realm"].load_tokenizer(a.pop("reference"))
        self.add(tokenizer)
        return attributes(tokenizer)

    def op_encode(self, a: dict[str, Any], model: realm.Model) -> Any:
        encoder = self.named(a, "tokenizer") if "tokenizer" in a else model
        return encoder.encode(
            a.pop("text"), special=a.pop("special", False), boundaries=a.pop("boundaries", True)
        )

    def op_decode(self, a: dict[str, Any], model: realm.Model) -> str:
        return model.decode(a.pop("tokens"))

    def op_token_id(self, a: dict[str, Any], model: realm.Model) -> int | None:
        return model.tokenizer.token_id(a.pop("text"))

    def op_render(self, a: dict[str, Any], model: realm.Model) -> Any:
        messages, options = self.request(a)
        return model.apply_chat_template(messages, **options)

    def op_render_tokens(self, a: dict[str, Any], model: realm.Model) -> list[int]:
        messages, options = self.request(a)
        return model.apply_chat_template(messages, tokenize=True, **options)

    # Generations.

    def op_generate(self, a: dict[str, Any], model: realm.Model) -> Any:
        prompt, options = self.request(a)
        return completion(model.generate(prompt, **options))

    def op_stream(self, a: dict[str, Any], model: realm.Model) -> None:
        prompt, options = self.request(a)
        self.add(model.stream(prompt, **options))

    def op_next(self, a: dict[str, Any], model: realm.Model) -> Any:
        chunk = next(self.named(a, "generation"), None)
        return None if chunk is None else chunk_json(chunk)

    def op_collect(self, a: dict[str, Any], model: realm.Model) -> Any:
        chunks = list(self.named(a, "generation"))
        text = "".join(chunk.text for chunk in chunks)
        return {"text": text, "chunks": [chunk_json(chunk) for chunk in chunks], "count": len(chunks)}

    def op_finish(self, a: dict[str, Any], model: realm.Model) -> Any:
        return completion(self.named(a, "generation").finish())

    def op_cancel(self, a: dict[str, Any], model: realm.Model) -> None:
        self.named(a, "generation").cancel()

    def op_close(self, a: dict[str, Any], model: realm.Model) -> None:
        thing = self.objects.pop(a.pop("object"))
        if hasattr(thing, "close"):
            thing.close()

    # Scores and vectors.

    def op_score(self, a: dict[str, Any], model: realm.Model) -> Any:
        scores = model.score(a.pop("tokens"), top=a.pop("top", 0))
        return [{"next": score.next, "top": [attributes(t) for t in score.top]} for score in scores]

    def op_log_likelihood(self, a: dict[str, Any], model: realm.Model) -> Any:
        return model.log_likelihood(a.pop("prompt"), a.pop("continuation"))

    def op_embed(self, a: dict[str, Any], model: realm.Model) -> Any:
        text = a.pop("text") if "text" in a else a.pop("tokens")
        pooling, normalize = a.pop("pooling", None), a.pop("normalize", True)
        return model.embed(text, pooling=pooling, normalize=normalize).tolist()

    # Lists.

    def op_generate_many(self, a: dict[str, Any], model: realm.Model) -> Any:
        options, each = self.options(a.pop("options", {})), a.pop("each", False)
        return [
            {"error": {"code": one.code, "message": one.message}} if isinstance(one, realm.RealmError) else completion(one)
            for one in model.generate_many(a.pop("prompts"), return_exceptions=each, **options)
        ]

    def op_embed_many(self, a: dict[str, Any], model: realm.Model) -> Any:
        pooling, normalize = a.pop("pooling", None), a.pop("normalize", True)
        return model.embed_many(a.pop("texts"), pooling=pooling, normalize=normalize).tolist()

    def op_score_many(self, a: dict[str, Any], model: realm.Model) -> Any:
        return [
            [{"next": score.next, "top": [attributes(t) for t in score.top]} for score in scores]
            for scores in model.score_many(a.pop("texts"), top=a.pop("top", 0))
        ]

    def op_encode_many(self, a: dict[str, Any], model: realm.Model) -> Any:
        special, boundaries = a.pop("special", False), a.pop("boundaries", True)
        return model.encode_many(a.pop("texts"), special=special, boundaries=boundaries)

    # Chat sessions.

    def op_chat(self, a: dict[str, Any], model: realm.Model) -> None:
        def function(made: dict[str, Any]) -> Any:
            run = tool({key: value for key, value in made.items() if key != "definition"})
            return made["definition"], lambda **arguments: run(arguments)

        session = realm.ChatSession(
            model,
            system=a.pop("system", None),
            tools=[function(made) for made in a.pop("tools", [])],
            max_rounds=a.pop("max_rounds", None),
            overflow=a.pop("overflow", None),
            **self.options(a.pop("options", {})),
        )
        self.add(session)

    def op_ask(self, a: dict[str, Any], model: realm.Model) -> Any:
        return completion(self.named(a, "chat").ask(a.pop("text")))

    def op_ask_stream(self, a: dict[str, Any], model: realm.Model) -> None:
        self.add(self.named(a, "chat").stream(a.pop("text")))

    def op_chat_state(self, a: dict[str, Any], model: realm.Model) -> Any:
        chat = self.named(a, "chat")
        return {"messages": chat.messages, "dropped_messages": chat.dropped_messages, "busy": chat.busy}

    def op_set_messages(self, a: dict[str, Any], model: realm.Model) -> None:
        self.named(a, "chat").messages = a.pop("messages")

    def op_undo(self, a: dict[str, Any], model: realm.Model) -> Any:
        return self.named(a, "chat").undo()

    def op_clear(self, a: dict[str, Any], model: realm.Model) -> None:
        self.named(a, "chat").clear()

    # Sequences.

    def op_sequence(self, a: dict[str, Any], model: realm.Model) -> None:
        self.add(model.sequence())

    def op_append(self, a: dict[str, Any], model: realm.Model) -> None:
        self.named(a, "sequence").append(a.pop("tokens"))

    def op_forward(self, a: dict[str, Any], model: realm.Model) -> Any:
        output = a.pop("output", "last_logits")
        forwarded = self.named(a, "sequence").forward(output)
        values = forwarded.values.numpy()
        rows = values.reshape(-1, values.shape[-1]) if values.size else values.reshape(0, 0)
        return {
            "rows": len(rows),
            "width": rows.shape[1],
            "cached": forwarded.cached,
            "argmax": [int(row.argmax()) for row in rows],
            "values": values.ravel().tolist(),
        }

    def op_sequence_state(self, a: dict[str, Any], model: realm.Model) -> Any:
        sequence = self.named(a, "sequence")
        return {"tokens": sequence.tokens, "len": len(sequence), "context_length": sequence.context_length}

    def op_fork(self, a: dict[str, Any], model: realm.Model) -> None:
        self.add(self.named(a, "sequence").fork())

    def op_truncate(self, a: dict[str, Any], model: realm.Model) -> None:
        self.named(a, "sequence").truncate(a.pop("len"))

    def op_save(self, a: dict[str, Any], model: realm.Model) -> int:
        data = self.named(a, "sequence").save()
        self.add(data)
        return len(data)

    def op_restore(self, a: dict[str, Any], model: realm.Model) -> None:
        data = self.named(a, "bytes") if "bytes" in a else a.pop("junk").encode()
        restore = model.restore_foreign_sequence if a.pop("foreign", False) else model.restore_sequence
        self.add(restore(data))

    # Adapters.

    def op_load_adapter(self, a: dict[str, Any], model: realm.Model) -> Any:
        adapter = model.load_adapter(FOLDER / a.pop("path"))
        self.add(adapter)
        return attributes(adapter)

    def op_adapted(self, a: dict[str, Any], model: realm.Model) -> None:
        self.add(model.adapted(self.named(a, "adapter"), scale=a.pop("scale", 1.0)))

    # Tenants.

    def op_tenant(self, a: dict[str, Any], model: realm.Model) -> None:
        self.add(self.objects["realm"].tenant(a.pop("name"), limits(a.pop("limits", {}))))

    def op_tenant_model(self, a: dict[str, Any], model: realm.Model) -> None:
        self.add(self.named(a, "tenant").model(model))

    def op_set_limits(self, a: dict[str, Any], model: realm.Model) -> None:
        self.named(a, "tenant").set_limits(limits(a.pop("limits", {})))

    def op_tenant_state(self, a: dict[str, Any], model: realm.Model) -> Any:
        tenant = self.named(a, "tenant")
        found = attributes(tenant.limits)
        for key in ("request_timeout", "program_cpu_time"):
            seconds = found.pop(key)
            found[key + "_ms"] = None if seconds is None else round(seconds * 1000)
        return {**attributes(tenant), "has_program": tenant.program is not None, "limits": found}

    def op_tenant_metrics(self, a: dict[str, Any], model: realm.Model) -> Any:
        return served(self.named(a, "tenant").metrics())

    # Programs.

    def op_load_program(self, a: dict[str, Any], model: realm.Model) -> Any:
        return self._program(self.objects["realm"].load_program(FOLDER / a.pop("file")))

    def op_compile_program(self, a: dict[str, Any], model: realm.Model) -> Any:
        wasm = (FOLDER / a.pop("file")).read_bytes()
        if "tenant" in a:
            return self._program(self.named(a, "tenant").compile_program(wasm))
        return self._program(self.objects["realm"].load_program(wasm))

    def _program(self, program: realm.Program) -> Any:
        self.add(program)
        return attributes(program.info)

    def op_set_program(self, a: dict[str, Any], model: realm.Model) -> None:
        name = a.pop("program")
        self.named(a, "tenant").set_program(None if name is None else self.objects[name])

    def op_add_program(self, a: dict[str, Any], model: realm.Model) -> None:
        self.named(a, "tenant").add_program(a.pop("name"), self.named(a, "program"))

    def op_remove_program(self, a: dict[str, Any], model: realm.Model) -> bool:
        return bool(self.named(a, "tenant").remove_program(a.pop("name")))

    def op_set_grants(self, a: dict[str, Any], model: realm.Model) -> None:
        lines: list[Any] = []

        def log(tenant: str, level: str, message: str) -> None:
            lines.append({"tenant": tenant, "level": level, "message": message})

        random, store = a.pop("random", None), a.pop("store", None)
        grants = realm.Grants(
            log=log if a.pop("log", False) else None,
            clock=a.pop("clock", False),
            random=True if random == "system" else random,
            store=None if store is None else realm.Store(store),
            http=a.pop("http", None),
            tools={name: tool(made) for name, made in a.pop("tools", {}).items()},
        )
        self.named(a, "tenant").set_grants(grants)
        self.add(lines)

    def op_log_lines(self, a: dict[str, Any], model: realm.Model) -> Any:
        # Lines come from a thread of their own, some time after the program wrote them.
        lines = self.named(a, "log")
        for _ in range(100):
            if lines:
                break
            time.sleep(0.01)
        return list(lines)

    # Numbers.

    def op_metrics(self, a: dict[str, Any], model: realm.Model) -> Any:
        metrics = model.metrics()
        return {
            "served": served(metrics.served),
            "steps": metrics.step_seconds.count,
            "kv": attributes(metrics.kv),
            "tenants": [{"name": each.name, "served": served(each.served)} for each in metrics.tenants],
        }

    def op_prometheus(self, a: dict[str, Any], model: realm.Model) -> str:
        return str(self.objects["realm"].prometheus())


def attributes(thing: Any) -> dict[str, Any]:
    """Returns the attributes of an object that are plain values."""
    names = (name for name in dir(thing) if not name.startswith("_"))
    values = ((name, getattr(thing, name)) for name in names)
    return {name: value for name, value in values if value is None or isinstance(value, (str, int, float, list))}


def token(of: Any) -> Any:
    return {"id": of.id, "logprob": of.logprob, "top": [attributes(other) for other in of.top]}


def completion(of: realm.Completion) -> Any:
    return {
        "text": of.text,
        "reasoning": of.reasoning,
        "warnings": of.warnings,
        "ids": [each.id for each in of.tokens],
        "tokens": [token(each) for each in of.tokens],
        "tool_calls": [attributes(call) for call in of.tool_calls],
        "finish_reason": of.finish_reason,
        "usage": attributes(of.usage),
        "decode_seconds": of.timings.decode,
    }


def chunk_json(of: realm.Chunk) -> Any:
    finish = None if of.usage is None else {"reason": of.finish_reason, "usage": attributes(of.usage)}
    return {
        "text": of.text,
        "reasoning": of.reasoning,
        "warnings": of.warnings,
        "tokens": [token(each) for each in of.tokens],
        "tool_calls": [attributes(call) for call in of.tool_calls],
        "finish": finish,
    }


def served(of: realm.Served) -> Any:
    tokens, requests = of.tokens, of.requests
    return {
        **attributes(of),
        **attributes(requests),
        "prompt_tokens": tokens.prompt,
        "cached_tokens": tokens.cached,
        "generated_tokens": tokens.generated,
        "first_tokens": of.first_token_seconds.count,
    }


def limits(asked: dict[str, Any]) -> realm.Limits:
    asked = dict(asked)
    for key in ("request_timeout", "program_cpu_time"):
        if key + "_ms" in asked:
            asked[key] = asked.pop(key + "_ms") / 1000
    return realm.Limits(**asked)


def tool(made: dict[str, Any]) -> Callable[[Any], Any]:
    def call(arguments: Any) -> Any:
        if "error" in made:
            raise RuntimeError(made["error"])
        return made.get("answer", arguments)

    assert set(made) <= {"answer", "error", "echo"}
    return call


def processor(asked: dict[str, Any]) -> Callable[[list[int], Any], None]:
    """Returns the logits processor that a scenario describes."""

    def process(ids: list[int], logits: Any) -> None:
        if "fail" in asked:
            raise realm.RealmError(asked["fail"])
        if "only" in asked:
            kept = logits[asked["only"]]
            logits[:] = -math.inf
            logits[asked["only"]] = kept
        if asked.get("not_the_last"):
            logits[ids[-1]] = -math.inf
        if asked.get("nan"):
            logits[0] = math.nan

    return process


def resolve(value: Any, kept: dict[str, Any]) -> Any:
    """Returns `value` with every `{"$ref": "name.key.0"}` replaced by its result. Expectations are resolved later."""
    if isinstance(value, dict):
        if set(value) == {"$ref"}:
            name, *parts = value["$ref"].split(".")
            at = kept[name]
            for part in parts:
                at = at[int(part)] if isinstance(at, list) else at[part]
            return at
        return {key: resolve(each, kept) for key, each in value.items() if key != "expect"}
    return [resolve(each, kept) for each in value] if isinstance(value, list) else value


def mismatch(found: Any, wanted: Any) -> str | None:
    """Returns where `found` differs from the description `wanted`; `None` if it does not."""
    if isinstance(wanted, dict):
        if any(key.startswith("$") for key in wanted):
            return next((why for key in wanted if (why := special(found, key, wanted[key]))), None)
        for key, value in wanted.items():
            if not isinstance(found, dict) or key not in found:
                return f": {found} has no `{key}`"
            if why := mismatch(found[key], value):
                return f".{key}{why}"
        return None
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return f": {found} has not {len(wanted)} items"
        pairs = enumerate(zip(found, wanted, strict=True))
        return next((f"[{i}]{why}" for i, pair in pairs if (why := mismatch(*pair))), None)
    same = found == wanted and isinstance(found, bool) == isinstance(wanted, bool)
    return None if same else f": {found!r} and not {wanted!r}"


def special(found: Any, name: str, argument: Any) -> str | None:
    if name == "$json":
        return mismatch(json.loads(found), argument)
    if name == "$starts":
        return mismatch(found[: len(argument)], argument)
    matchers: dict[str, Callable[[], bool]] = {
        "$at_least": lambda: found >= argument,
        "$at_most": lambda: found <= argument,
        "$near": lambda: abs(found - argument) <= 1e-3 * max(abs(argument), 1),
        "$contains": lambda: (
            argument in found
            if isinstance(found, str)
            else any(mismatch(item, argument) is None for item in found)
        ),
        "$length": lambda: len(found) == argument,
        "$norm": lambda: abs(math.hypot(*found) - argument) <= 1e-3,
        "$not": lambda: mismatch(found, argument) is not None,
    }
    return None if matchers[name]() else f": {str(found)[:400]} is not {name} {argument}"


def check(runner: Runner, step: dict[str, Any], arguments: dict[str, Any]) -> str | None:
    try:
        result = runner.operate(dict(arguments))
    except realm.RealmError as error:
        if "error" not in step:
            return f": {error.code}: {error}"
        return mismatch({"code": error.code, "message": error.message}, arguments["error"])
    if "error" in step:
        return f": an error was expected, not {result}"
    if "as" in step:
        runner.values[step["as"]] = result
    expected = resolve(step.get("expect"), runner.values)
    return None if expected is None else mismatch(result, expected)


def perform(runner: Runner, step: dict[str, Any]) -> str | None:
    arguments = resolve(step, runner.values)
    deadline = time.monotonic() + (10 if step.get("eventually") else 0)
    while True:
        why = check(runner, step, arguments)
        if why is None or time.monotonic() >= deadline:
            return why
        time.sleep(0.01)


@pytest.fixture(scope="module", params=AREAS)
def area(request: pytest.FixtureRequest) -> Iterator[tuple[Runner, list[Any]]]:
    scenarios = json.loads((FOLDER / f"{request.param}.json").read_text())["scenarios"]
    assert scenarios
    yield Runner(), scenarios


def test_scenarios(area: tuple[Runner, list[Any]]) -> None:
    runner, scenarios = area
    failures = []
    for scenario in scenarios:
        runner.begin()
        for i, step in enumerate(scenario["steps"]):
            if why := perform(runner, step):
                failures.append(f"{scenario['name']}, step {i} (`{step['op']}`){why}")
                break
    assert not failures, "\n" + "\n".join(failures)
