"""Answers with the likeliest token, one after another."""

from wit_world import exports
from wit_world.imports.models import Model, TextDecoder
from wit_world.imports.output import emit
from wit_world.imports.sequences import Sequence
from wit_world.imports.types import FinishReason, Request


class Program(exports.Program):
    def run(self, request: Request) -> FinishReason:
        model = Model.current()
        text = TextDecoder(model, request.stop)
        sequence = Sequence.open(model)
        sequence.append(model.tokenize(request.prompt))
        finish = FinishReason.LENGTH
        for _ in range(256 if request.max_tokens is None else request.max_tokens):
            token = sequence.forward().argmax()  # Your own way to choose.
            piece = text.push(token)
            emit(piece.text, [token])
            if piece.stopped or model.is_end(token):
                finish = FinishReason.STOP
                break
            sequence.append([token])
        emit(text.finish(), [])
        return finish
