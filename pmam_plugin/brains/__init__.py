"""brains"""
