"""Results and arguments as Python objects: copied, pickled, compared, indexed; and values that are no arguments."""

from __future__ import annotations

import ast
import collections.abc
import copy
import gc
import json
import pickle
import subprocess
import sys
import weakref
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy
import pytest
import realm


def results(runtime: realm.Realm, model: realm.Model) -> dict[str, Any]:
    completion = model.generate("Once upon", max_tokens=3, temperature=0, logprobs=2)
    chunks = list(model.stream("Once", max_tokens=2, temperature=0))
    sequence = model.sequence()
    sequence.append([1, 2])
    found: list[Any] = [completion, completion.usage, completion.timings, completion.tokens[0], *chunks]
    found += [completion.tokens[0].top[0], realm.ToolCall("a", "b", "{}"), realm.ProgressEvent("loading", "", 1, None)]
    found += [model.info, model.metrics(), model.metrics().kv, model.embed("x"), model.score("a b", top=1)[0]]
    found += [sequence.forward("logits"), sequence.forward("logits").values, runtime.hub.list()[0]]
    found += [realm.Limits(weight=2.0, models=["a"]), realm.Limits()]
    return {f"{type(each).__name__} {i}": each for i, each in enumerate(found)}


def test_results_are_values(runtime: realm.Realm, model: realm.Model) -> None:
    for name, value in results(runtime, model).items():
        for again in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
            assert type(again) is type(value) and again == value and not again != value, name
            assert repr(again) == repr(value), name
        assert value != object()
        if hasattr(value, "to_dict") and not isinstance(value, realm.Forwarded):
            json.dumps(value.to_dict())


def test_results_match_and_hash(model: realm.Model) -> None:
    usage = model.generate("Once upon", max_tokens=3, temperature=0).usage
    match usage:
        case realm.Usage(prompt, _, generated):
            assert (prompt, generated) == (2, 3)
        case _:
            raise AssertionError
    assert hash(usage) == hash(copy.copy(usage)) and len({usage, copy.copy(usage)}) == 1
    assert usage.to_dict()["generated_tokens"] == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(realm.Limits())


def test_errors_keep_their_code_through_pickle() -> None:
    for code, kind in realm.errors.BY_CODE.items():
        again = pickle.loads(pickle.dumps(kind("what went wrong")))
        assert type(again) is kind and again.code == code and str(again) == again.message == "what went wrong"


def test_what_lives_in_the_process_says_so(runtime: realm.Realm, model: realm.Model) -> None:
    for thing in (runtime, model, model.sequence(), model.tokenizer, realm.Grants(), realm.ChatSession(model)):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(thing)


def test_arrays_are_sequences() -> None:
    vector = realm.Array([1.0, 2.0, 3.0, 4.0])
    assert isinstance(vector, collections.abc.Sequence)
    assert (len(vector), vector[0], vector[-1], list(vector)) == (4, 1.0, 4.0, [1.0, 2.0, 3.0, 4.0])
    assert list(vector[1:3]) == [2.0, 3.0] and list(vector[::-2]) == [4.0, 2.0] and list(vector[9:]) == []
    assert 3.0 in vector and 5.0 not in vector and next(reversed(vector)) == 4.0
    assert vector.index(3.0) == 2 and vector.count(1.0) == 1
    assert vector == realm.Array(numpy.array([1, 2, 3, 4], numpy.float32)) and vector != vector[:2]
    for wrong in (4, -5):
        with pytest.raises(IndexError, match="out of range"):
            vector[wrong]
    with pytest.raises(TypeError, match="int or a slice"):
        vector["a"]

    matrix = realm.Array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (3, 2))
    assert len(matrix) == 3 and matrix.shape == (3, 2)
    assert matrix[-1].tolist() == [5.0, 6.0] and matrix[1:].tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert matrix[1, 0] == 3.0 and [row.tolist() for row in matrix] == matrix.tolist()
    assert matrix[0] in matrix and matrix[:0].shape == (0, 2)
    with pytest.raises(ValueError, match="shape"):
        realm.Array([1.0, 2.0, 3.0], (2, 2))


@pytest.mark.parametrize("threads", [-1, 0, 2**70, 100_000])
def test_numbers_that_are_none_are_value_errors(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads is {threads}; it must be from"):
        realm.Realm(threads=threads)


def test_arguments_of_other_kinds_are_refused_by_name(runtime: realm.Realm, model: realm.Model) -> None:
    for value in (True, 2.0, "2"):
        with pytest.raises(TypeError, match="threads is a whole number"):
            realm.Realm(threads=value)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="max_queued is a whole number"):
            realm.Limits(max_queued=value)  # type: ignore[arg-type]
    for name in ("max_concurrent", "max_queued", "kv_tokens", "tokens_per_minute", "program_memory"):
        with pytest.raises(ValueError, match=f"{name} is -1"):
            realm.Limits(**{name: -1})  # type: ignore[arg-type]
    for name in ("kv_tokens", "kv_memory", "max_queued", "gpu_layers"):
        with pytest.raises(ValueError, match=f"{name} is -1"):
            runtime.load_model("smollm2-135m", **{name: -1})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="quota is -1"):
        realm.Store(-1)
    with pytest.raises(ValueError, match="top is -1"):
        model.score("a", top=-1)
    with pytest.raises(ValueError, match="-5 is no token"):
        model.decode([-5])
    with pytest.raises(ValueError, match="length is -1"):
        model.sequence().truncate(-1)
    with pytest.raises(TypeError, match="token ids"):
        model.decode([True])


def test_lone_surrogates_become_replacement_characters(model: realm.Model) -> None:
    lone, whole = "a\ud83db", "a\ufffdb"
    assert model.encode(lone) == model.encode(whole)
    assert model.encode("\ud83d\ude00") == model.encode("\U0001f600")
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 4}
    assert model.generate(lone, **options).text == model.generate(whole, **options).text
    messages = [{"role": "user", "content": lone, "parts": [{"text": lone}]}]
    clean = [{"role": "user", "content": whole}]
    assert model.apply_chat_template(messages) == model.apply_chat_template(clean)
    assert model.generate("x", stop=[lone], **options).text == model.generate("x", **options).text
    assert model.embed(lone) == model.embed(whole) and model.embed_many([lone])[0] == model.embed(whole)
    tool = {"type": "function", "function": {"name": "a", "description": lone}}
    model.generate(messages, tools=[tool], **options)


def test_cycles_through_callbacks_are_collected(runtime: realm.Realm, model: realm.Model) -> None:
    class Agent:
        def __init__(self) -> None:
            self.tenant = runtime.tenant("a")
            self.model = self.tenant.model(model)
            self.tenant.set_grants(realm.Grants(tools={"look": self.look}, log=self.log))

        def look(self, argument: Any) -> None:
            return None

        def log(self, tenant: str, level: str, message: str) -> None:
            return None

    def alive(agents: list[weakref.ref[Agent]]) -> int:
        gc.collect()
        return sum(agent() is not None for agent in agents)

    assert alive([weakref.ref(Agent()) for _ in range(20)]) == 0

    def closed() -> weakref.ref[Agent]:
        agent = Agent()
        agent.tenant.close()
        return weakref.ref(agent)

    def replaced() -> weakref.ref[Agent]:
        agent = Agent()
        agent.tenant.set_grants(realm.Grants())
        return weakref.ref(agent)

    assert alive([closed() for _ in range(20)]) == 0
    assert alive([replaced() for _ in range(20)]) == 0


def test_cycles_of_realm_s_own_objects_are_freed(runtime: realm.Realm, model: realm.Model) -> None:
    """A cycle through methods, which the collector cannot empty: Realm's objects have to release them themselves. Weak
    references would not show it: the collector clears them before it frees any object."""

    class Agent:
        grants: realm.Grants | None = None

        def see(self, *_: Any) -> None:
            return None

    held = object()

    def tenant() -> None:
        tenant = runtime.tenant("a")
        tenant.set_grants(realm.Grants(tools={"model": tenant.model, "held": held.__eq__}))

    def seen() -> None:
        tenant = runtime.tenant("a")
        seen = tenant.model(model)
        tenant.set_grants(realm.Grants(tools={"generate": seen.generate, "held": held.__eq__}))

    def grants() -> None:
        agent = Agent()
        agent.grants = realm.Grants(tools={"see": agent.see, "held": held.__eq__})

    before = sys.getrefcount(held)
    for cycle in (tenant, seen, grants):
        cycle()
        gc.collect()
        assert sys.getrefcount(held) == before, cycle


def test_pending_loads_and_pulls_are_collected_with_their_callbacks(runtime: realm.Realm) -> None:
    class Loader:
        def __init__(self) -> None:
            self.load = runtime.load_model_async("smollm2-135m", progress=self.progress)
            self.pull = runtime.hub.pull_async("smollm2-135m", progress=self.progress)

        def progress(self, event: realm.ProgressEvent) -> None:
            return None

    loader = weakref.ref(Loader())
    gc.collect()
    assert loader() is None


def test_the_package_says_what_it_is() -> None:
    about = metadata.metadata("realm")
    assert realm.__version__ == about["Version"]
    files = [str(file) for file in metadata.files("realm") or []]
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        assert any(file.endswith(name) for file in files)


def test_every_option_is_documented() -> None:
    stub = ast.parse((Path(realm.__file__).parent / "_realm.pyi").read_text())
    for kind, names in {"generate": ("_Answer", "_Request"), "load_model": ("_Load",)}.items():
        owner = realm.Model if kind == "generate" else realm.Realm
        text = getattr(owner, kind).__doc__
        for node in stub.body:
            if isinstance(node, ast.ClassDef) and node.name in names:
                options = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
                missing = [each.id for each in options if isinstance(each, ast.Name) and f"`{each.id}`" not in text]
                assert not missing, missing
    for name in realm.__all__:
        thing = getattr(realm, name)
        if not isinstance(thing, type) or thing.__module__ != "realm":
            continue
        assert thing.__doc__, name
        for member, value in vars(thing).items():
            if not member.startswith("_"):
                assert value.__doc__, f"{name}.{member}"


SUBINTERPRETER = '''
import sys
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters
code = """
try:
    import realm
except ImportError as error:
    assert "sub-interpreter" in str(error) and "WSGIApplicationGroup" in str(error), error
else:
    raise SystemExit("imported")
"""
run = interpreters.exec if sys.version_info >= (3, 13) else interpreters.run_string
failed = run(interpreters.create(), code)
assert failed is None, failed
'''


def test_a_sub_interpreter_is_told_what_to_do() -> None:
    subprocess.run([sys.executable, "-c", SUBINTERPRETER], check=True, timeout=60)
