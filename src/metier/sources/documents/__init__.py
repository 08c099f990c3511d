"""Documents as records: text, Markdown, HTML, XML, PDF and Word files, with their outline, cut into chunks that know their place."""

from metier.sources.documents.blocks import Block, Document, LeftOut
from metier.sources.documents.chunks import Chunk, ChunkSettings, chunks
from metier.sources.documents.rows import DOCUMENT_FIELDS, DocumentKind, divided, document_rows, read_document

__all__ = ["DOCUMENT_FIELDS", "Block", "Chunk", "ChunkSettings", "Document", "DocumentKind", "LeftOut", "chunks", "divided", "document_rows", "read_document"]
