/* Answers with the likeliest token, one after another. */
#include "realm.h"

bool realm_run(realm_request *request, realm_finish *finish, realm_error *error) {
    realm_model model = realm_model_current();
    realm_text text = realm_text_open(model, request);
    realm_sequence sequence;
    realm_tokens prompt;
    if (!realm_tokenize(model, &request->prompt, &prompt, error) || !realm_sequence_open(model, &sequence, error) ||
        !realm_append(sequence, prompt.ptr, prompt.len, error)) {
        return false;
    }
    *finish = REALM_LENGTH;
    for (uint32_t left = request->max_tokens.is_some ? request->max_tokens.val : 256; left > 0; left--) {
        realm_logits logits;
        bool stopped;
        if (!realm_forward(sequence, &logits, error)) {
            return false;
        }
        realm_token token = realm_argmax(logits); /* Your own way to choose. */
        realm_logits_drop(logits);
        if (!realm_emit_token(text, token, &stopped, error)) {
            return false;
        }
        if (stopped || realm_is_end(model, token)) {
            *finish = REALM_STOP;
            break;
        }
        if (!realm_append(sequence, &token, 1, error)) {
            return false;
        }
    }
    return realm_emit_rest(text, error);
}
