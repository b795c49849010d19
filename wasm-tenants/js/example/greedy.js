// Answers with the likeliest token, one after another.
import { Model, TextDecoder } from 'realm:tenant/models@0.1.0';
import { Sequence } from 'realm:tenant/sequences@0.1.0';
import { emit } from 'realm:tenant/output@0.1.0';

export const program = {
  run(request) {
    const model = Model.current();
    const text = new TextDecoder(model, request.stop);
    const sequence = Sequence.open(model);
    sequence.append(model.tokenize(request.prompt));
    let finish = 'length';
    for (let left = request.maxTokens ?? 256; left > 0; left--) {
      const token = sequence.forward().argmax(); // Your own way to choose.
      const piece = text.push(token);
      emit(piece.text, [token]);
      if (piece.stopped || model.isEnd(token)) {
        finish = 'stop';
        break;
      }
      sequence.append([token]);
    }
    emit(text.finish(), []);
    return finish;
  },
};
