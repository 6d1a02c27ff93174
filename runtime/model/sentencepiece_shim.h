/* The little that the tokenizer needs of the SentencePiece library, in C: reading a model file's vocabulary. */
#ifndef MK_MODEL_SENTENCEPIECE_SHIM_H
#define MK_MODEL_SENTENCEPIECE_SHIM_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mk_spm mk_spm;
typedef enum mk_spm_kind { MK_SPM_TEXT, MK_SPM_BYTE, MK_SPM_CONTROL, MK_SPM_UNKNOWN, MK_SPM_UNUSED } mk_spm_kind;

/* From the bytes of a model file. NULL on failure, with the library's words in message. */
mk_spm *mk_spm_open(const void *data, size_t bytes, char *message, size_t message_size);
void mk_spm_close(mk_spm *spm);
int mk_spm_count(const mk_spm *spm);
int mk_spm_pad(const mk_spm *spm), mk_spm_eos(const mk_spm *spm),
    mk_spm_unk(const mk_spm *spm); /* ids; -1 if the model has none */
/* Text (UTF-8, borrowed) of piece 0 <= id < count. */
const char *mk_spm_piece(const mk_spm *spm, int id, size_t *bytes, float *score, mk_spm_kind *kind);

#ifdef __cplusplus
}
#endif
#endif
