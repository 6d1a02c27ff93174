#include "runtime/model/sentencepiece_shim.h"

#include <sentencepiece_processor.h>

#include <cstdio>
#include <exception>
#include <new>

struct mk_spm {
  sentencepiece::SentencePieceProcessor processor;
};

mk_spm *mk_spm_open(const void *data, size_t bytes, char *message, size_t message_size) {
  mk_spm *spm = new (std::nothrow) mk_spm;
  if (!spm) {
    snprintf(message, message_size, "out of memory");
    return nullptr;
  }
  try { /* no exception may cross into C */
    sentencepiece::util::Status status = spm->processor.LoadFromSerializedProto({static_cast<const char *>(data), bytes});
    if (status.ok()) return spm;
    snprintf(message, message_size, "%s", status.ToString().c_str());
  } catch (const std::exception &e) {
    snprintf(message, message_size, "%s", e.what());
  }
  delete spm;
  return nullptr;
}

void mk_spm_close(mk_spm *spm) { delete spm; }
int mk_spm_count(const mk_spm *spm) { return spm->processor.GetPieceSize(); }
int mk_spm_pad(const mk_spm *spm) { return spm->processor.pad_id(); }
int mk_spm_eos(const mk_spm *spm) { return spm->processor.eos_id(); }
int mk_spm_unk(const mk_spm *spm) { return spm->processor.unk_id(); }

const char *mk_spm_piece(const mk_spm *spm, int id, size_t *bytes, float *score, mk_spm_kind *kind) {
  const auto &p = spm->processor;
  const std::string &piece = p.IdToPiece(id);
  *bytes = piece.size();
  *score = p.GetScore(id);
  *kind = p.IsUnknown(id)   ? MK_SPM_UNKNOWN
          : p.IsControl(id) ? MK_SPM_CONTROL
          : p.IsUnused(id)  ? MK_SPM_UNUSED
          : p.IsByte(id)    ? MK_SPM_BYTE
                            : MK_SPM_TEXT;
  return &piece[0];  // the model owns the string
}
